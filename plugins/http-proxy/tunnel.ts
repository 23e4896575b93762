/** Bytes in both directions between two sockets: CONNECT, and Upgrade to WebSocket. Neither is opened or changed. */
import { type IncomingMessage, request as httpRequest, ServerResponse } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import { type Duplex, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { isPeerDistError, PeerDistError } from '../../lib/errors.ts';
import { endToEndFields } from '../../lib/http/index.ts';
import { type ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import { type DestinationRule, openConnection } from './access.ts';
import { errorResponse } from './errors.ts';
import { type ResolvedTimeouts, splitAuthority } from './options.ts';
import { sendResponse } from './respond.ts';

export interface TunnelContext {
  readonly timeouts: ResolvedTimeouts;
  readonly observer: Observer;
  readonly viaName: string;
  readonly originCa: string | undefined;
  readonly ruleFor: (clientAddress: string) => DestinationRule | undefined;
}

/** Answers a request whose socket Node has handed over, and closes the connection. */
export async function answerOnSocket(
  message: IncomingMessage,
  socket: Duplex,
  response: ProxyResponse,
  viaName: string,
): Promise<void> {
  const writer = new ServerResponse(message);
  writer.shouldKeepAlive = false;
  writer.assignSocket(socket as Socket);
  socket.on('error', () => {});
  try {
    await sendResponse(response, writer, viaName);
    await new Promise((resolve) => {
      if (writer.writableFinished || socket.destroyed) resolve(undefined);
      writer.once('finish', resolve).once('close', resolve);
    });
    socket.end();
  } catch {
    socket.destroy();
  }
}

/** CONNECT (RFC 9110 9.3.6) to an authority that the caller has found acceptable. */
export async function connectTunnel(
  target: { hostname: string; port: number },
  clientAddress: string,
  socket: Duplex,
  head: Buffer,
  context: TunnelContext,
): Promise<void> {
  const upstream = await openSocket({ scheme: 'http', ...target }, clientAddress, context, socket);
  socket.write(`HTTP/1.1 200 Connection Established\r\nVia: 1.1 ${context.viaName}\r\n\r\n`);
  if (head.byteLength > 0) upstream.write(head);
  await exchange(socket, upstream, context);
}

/** A WebSocket handshake and, if the origin agrees, the tunnel behind it; any other answer is passed on. */
export async function upgradeTunnel(
  message: IncomingMessage,
  request: ProxyRequest,
  socket: Duplex,
  head: Buffer,
  context: TunnelContext,
): Promise<void> {
  const { hostname, port } = splitAuthority(request.authority, request.scheme);
  const upstream = await openSocket(
    { scheme: request.scheme, hostname, port },
    request.client.address,
    context,
    socket,
  );
  const send = request.scheme === 'https' ? httpsRequest : httpRequest;
  const outgoing = send({
    method: request.method,
    path: request.target,
    headers: {
      ...(request.headers as Record<string, string>),
      host: request.authority,
      connection: 'Upgrade',
      upgrade: 'websocket',
    },
    createConnection: () => upstream,
  });
  const leave = (): void => void outgoing.destroy();
  socket.once('close', leave);
  try {
    const answer = await new Promise<{ head: IncomingMessage; first?: Buffer }>((resolve, reject) => {
      const cancel = setTimeout(
        () => reject(new PeerDistError('ERR_PEERDIST_ORIGIN_TIMEOUT', 'the origin did not answer in time')),
        context.timeouts.headMs || 2 ** 31 - 1,
      );
      cancel.unref();
      outgoing.once('response', (response) => resolve({ head: response }));
      outgoing.once('upgrade', (response, _socket, first) => resolve({ head: response, first }));
      outgoing.once('close', () => clearTimeout(cancel));
      outgoing.once('error', (error) =>
        reject(new PeerDistError('ERR_PEERDIST_ORIGIN_UNREACHABLE', 'the origin cannot be reached', { cause: error })),
      );
      outgoing.end();
    });
    if (answer.first === undefined) {
      const response = new ProxyResponse({
        status: answer.head.statusCode ?? 502,
        headers: endToEndFields(answer.head.headers),
        body: answer.head,
      });
      return await answerOnSocket(message, socket, response, context.viaName);
    }
    socket.write(switchingHead(answer.head));
    if (answer.first.byteLength > 0) socket.write(answer.first);
    if (head.byteLength > 0) upstream.write(head);
    await exchange(socket, upstream, context);
  } finally {
    socket.off('close', leave);
    if (!upstream.destroyed && socket.destroyed) upstream.destroy();
  }
}

/** Tells the client why there is no tunnel. */
export async function refuse(message: IncomingMessage, socket: Duplex, error: unknown, viaName: string): Promise<void> {
  if (socket.destroyed) return;
  await answerOnSocket(message, socket, errorResponse(error), viaName);
}

async function openSocket(
  target: { scheme: 'http' | 'https'; hostname: string; port: number },
  clientAddress: string,
  context: TunnelContext,
  client: Duplex,
): Promise<Socket> {
  const upstream = openConnection(target, context.ruleFor(clientAddress), context.originCa);
  const abandon = (): void => void upstream.destroy();
  client.once('close', abandon);
  try {
    await new Promise<void>((resolve, reject) => {
      upstream.setTimeout(context.timeouts.connectMs, () =>
        upstream.destroy(
          new PeerDistError('ERR_PEERDIST_ORIGIN_TIMEOUT', 'the destination could not be connected to in time'),
        ),
      );
      upstream.once(target.scheme === 'https' ? 'secureConnect' : 'connect', () => resolve());
      upstream.once('error', (error) =>
        reject(
          isPeerDistError(error)
            ? error
            : new PeerDistError('ERR_PEERDIST_ORIGIN_UNREACHABLE', 'the destination cannot be reached', {
                cause: error,
              }),
        ),
      );
      upstream.once('close', () =>
        reject(new PeerDistError('ERR_PEERDIST_ORIGIN_UNREACHABLE', 'the destination cannot be reached')),
      );
    });
    upstream.setTimeout(0);
    return upstream;
  } finally {
    client.off('close', abandon);
  }
}

async function exchange(client: Duplex, upstream: Duplex, { timeouts, observer }: TunnelContext): Promise<void> {
  let bytes = 0;
  const count = (): Transform =>
    new Transform({
      transform(chunk: Uint8Array, _encoding, callback) {
        bytes += chunk.byteLength;
        callback(null, chunk);
      },
    });
  const idle = (): void => {
    client.destroy();
    upstream.destroy();
  };
  (client as Socket).setTimeout?.(timeouts.idleMs, idle);
  (upstream as Socket).setTimeout?.(timeouts.idleMs, idle);
  try {
    await Promise.all([pipeline(client, count(), upstream), pipeline(upstream, count(), client)]);
  } catch {
    // one side left; the other has been closed by the pipelines
  } finally {
    idle();
    observer({ type: 'tunnel', bytes });
  }
}

/** The 101 with its end-to-end fields; lines are rebuilt, so nothing the origin sent can start a second head. */
function switchingHead(head: IncomingMessage): string {
  const lines = ['HTTP/1.1 101 Switching Protocols', 'Connection: Upgrade', 'Upgrade: websocket'];
  for (const [name, value] of Object.entries(endToEndFields(head.headers))) {
    for (const line of Array.isArray(value) ? value : [value as string]) {
      if (!/[\r\n\0]/.test(line) && name !== 'content-length') lines.push(`${name}: ${line}`);
    }
  }
  return `${lines.join('\r\n')}\r\n\r\n`;
}
