/** Bytes in both directions between two sockets: CONNECT, and Upgrade to WebSocket. Neither is opened or changed. */
import { type IncomingMessage, request as httpRequest, ServerResponse } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import { type Duplex, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { isPeerDistError, PeerDistError } from '../../lib/errors.ts';
import { endToEndFields, listMembers } from '../../lib/http/index.ts';
import { type ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import { checkVisible, type DestinationRule, openConnection } from './access.ts';
import { errorResponse, unreachable } from './errors.ts';
import type { ResolvedTimeouts } from './options.ts';
import { sendResponse } from './respond.ts';
import type { Upstream } from './upstream.ts';
import { refusalIn } from './upstream-link.ts';
import { absoluteForm } from './upstream-way.ts';
import type { WaitingClient } from './waiting-client.ts';

export interface TunnelContext {
  readonly timeouts: ResolvedTimeouts;
  readonly observer: Observer;
  readonly viaName: string;
  readonly originCa: string | undefined;
  readonly ruleFor: (clientAddress: string) => DestinationRule | undefined;
  /** The proxy that tunnels go through, too. */
  readonly upstream?: Upstream | undefined;
}

export interface TunnelTarget {
  readonly scheme: 'http' | 'https';
  readonly hostname: string;
  readonly port: number;
}

/** Answers a client that waits, and closes its connection. @returns the status */
export async function answerOnSocket(
  message: IncomingMessage,
  client: WaitingClient,
  response: ProxyResponse,
  { viaName, timeouts }: TunnelContext,
): Promise<number> {
  const { socket } = client;
  client.claim();
  if (socket.destroyed) {
    response.discard();
    return response.status;
  }
  const writer = new ServerResponse(message);
  writer.shouldKeepAlive = false;
  // A client that leaves while it is being answered ends its side; nothing it sends matters any more.
  socket.resume();
  try {
    writer.assignSocket(socket as Socket);
    await sendResponse(response, writer, viaName, timeouts.idleMs);
    if (!writer.writableFinished && !socket.destroyed) {
      await new Promise((resolve) => {
        writer.once('finish', resolve);
        socket.once('close', resolve);
      });
    }
    socket.end();
  } catch {
    socket.destroy();
  }
  return response.status;
}

/** CONNECT (RFC 9110 9.3.6) to a target that the caller has found acceptable. @returns the status, when the tunnel has ended */
export async function connectTunnel(
  target: TunnelTarget,
  { address, via }: { readonly address: string; readonly via: string | undefined },
  client: WaitingClient,
  context: TunnelContext,
): Promise<number> {
  const far = { hostname: target.hostname, port: target.port, via, headMs: context.timeouts.headMs };
  const { socket: upstream } = await openSocket(target, address, client, context, ({ link }) =>
    link.tunnel(far, client.signal),
  );
  const early = client.claim();
  client.socket.write(establishedHead(context.viaName));
  await exchange(client.socket, upstream, { toUpstream: early }, context);
  return 200;
}

/** A WebSocket handshake and, if the origin agrees, the tunnel behind it; any other answer is passed on. @returns the status, when all has ended */
export async function upgradeTunnel(
  message: IncomingMessage,
  request: ProxyRequest,
  target: TunnelTarget,
  client: WaitingClient,
  context: TunnelContext,
): Promise<number> {
  const far = { hostname: target.hostname, port: target.port, headMs: context.timeouts.headMs };
  // As with other requests: the whole URL over the link, but one for an https origin stays in TLS all the way.
  const isTunnelled = target.scheme === 'https' && context.upstream?.link.isTls === false;
  const { socket: upstream, isThrough } = await openSocket(
    target,
    request.client.address,
    client,
    context,
    ({ link }) => (isTunnelled ? link.connectOrigin(far, client.signal) : link.connect(client.signal)),
  );
  const path = isThrough && !isTunnelled ? absoluteForm(request) : request.target;
  try {
    const { head, first } = await handshake(request, path, upstream, client.signal, context.timeouts.headMs);
    const refusal = isThrough && !isTunnelled && refusalIn(head.statusCode ?? 502, head.headers['proxy-status']);
    if (refusal !== false && refusal !== undefined) throw refusal;
    if (first === undefined) {
      const { statusCode = 502, headers } = head;
      return await answerOnSocket(
        message,
        client,
        new ProxyResponse({ status: statusCode, headers: endToEndFields(headers), body: head }),
        context,
      );
    }
    if (!listMembers(head.headers.upgrade).includes('websocket')) {
      throw new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin switched to another protocol');
    }
    const early = client.claim();
    client.socket.write(switchingHead(head));
    await exchange(client.socket, upstream, { toUpstream: early, toClient: first }, context);
    return 101;
  } finally {
    upstream.destroy();
  }
}

/** Tells the client why there is no tunnel. @returns the status */
export function refuse(
  message: IncomingMessage,
  client: WaitingClient,
  error: unknown,
  context: TunnelContext,
): Promise<number> {
  return answerOnSocket(message, client, errorResponse(error), context);
}

/** Sends the handshake over a connection of its own; `first` is there when the origin has switched. */
function handshake(
  request: ProxyRequest,
  path: string,
  upstream: Socket,
  signal: AbortSignal,
  headMs: number,
): Promise<{ readonly head: IncomingMessage; readonly first?: Buffer }> {
  const send = request.scheme === 'https' ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const outgoing = send({
      method: request.method,
      path,
      headers: {
        ...(request.headers as Record<string, string>),
        host: request.authority,
        connection: 'Upgrade',
        upgrade: 'websocket',
      },
      createConnection: () => upstream,
      signal,
    });
    const late =
      headMs === 0
        ? undefined
        : setTimeout(
            () =>
              outgoing.destroy(new PeerDistError('ERR_PEERDIST_ORIGIN_TIMEOUT', 'the origin did not answer in time')),
            headMs,
          );
    const settle = (answer: { readonly head: IncomingMessage; readonly first?: Buffer }): void => {
      clearTimeout(late);
      resolve(answer);
    };
    outgoing.once('response', (head) => settle({ head }));
    outgoing.once('upgrade', (head, _socket, first) => settle({ head, first }));
    outgoing.once('error', (error) => reject(unreached(error)));
    outgoing.once('close', () => {
      clearTimeout(late);
      reject(unreached(undefined));
    });
    outgoing.end();
  });
}

/** @param through makes the connection by way of the upstream proxy, where there is one */
async function openSocket(
  target: TunnelTarget,
  clientAddress: string,
  client: WaitingClient,
  context: TunnelContext,
  through: (upstream: Upstream) => Promise<Socket>,
): Promise<{ readonly socket: Socket; readonly isThrough: boolean }> {
  const { upstream, timeouts, observer, ruleFor } = context;
  if (upstream !== undefined) checkVisible(ruleFor(clientAddress), target.hostname, target.port);
  const far = await upstream?.through(() => through(upstream), observer);
  const socket = far ?? (await openDirect(target, clientAddress, client, context));
  socket.setTimeout(timeouts.idleMs, () => socket.destroy());
  socket.on('error', () => {});
  const abandon = (): void => void socket.destroy();
  if (client.signal.aborted) abandon();
  client.signal.addEventListener('abort', abandon, { once: true });
  return { socket, isThrough: far !== undefined };
}

async function openDirect(
  target: TunnelTarget,
  clientAddress: string,
  client: WaitingClient,
  { ruleFor, originCa, timeouts }: TunnelContext,
): Promise<Socket> {
  const upstream = openConnection(target, ruleFor(clientAddress), originCa);
  const abandon = (): void => void upstream.destroy();
  if (client.signal.aborted) abandon();
  client.signal.addEventListener('abort', abandon, { once: true });
  await new Promise<void>((resolve, reject) => {
    upstream.setTimeout(timeouts.connectMs, () =>
      upstream.destroy(
        new PeerDistError('ERR_PEERDIST_ORIGIN_TIMEOUT', 'the destination could not be connected to in time'),
      ),
    );
    upstream.once(target.scheme === 'https' ? 'secureConnect' : 'connect', () => resolve());
    upstream.once('error', (error) => reject(unreached(error)));
    upstream.once('close', () => reject(unreached(undefined)));
  });
  upstream.removeAllListeners('timeout');
  return upstream;
}

async function exchange(
  client: Duplex,
  upstream: Socket,
  { toUpstream, toClient }: { readonly toUpstream: Buffer; readonly toClient?: Buffer },
  { timeouts, observer }: TunnelContext,
): Promise<void> {
  let bytes = toUpstream.byteLength + (toClient?.byteLength ?? 0);
  const count = (): Transform =>
    new Transform({
      transform(chunk: Uint8Array, _encoding, callback) {
        bytes += chunk.byteLength;
        callback(null, chunk);
      },
    });
  let closed = false;
  const close = (): void => {
    if (closed) return;
    closed = true;
    client.destroy();
    upstream.destroy();
    observer({ type: 'tunnel', bytes });
  };
  if (toUpstream.byteLength > 0) upstream.write(toUpstream);
  if (toClient !== undefined && toClient.byteLength > 0) client.write(toClient);
  (client as Socket).setTimeout(timeouts.idleMs, close);
  upstream.setTimeout(timeouts.idleMs, close);
  try {
    await Promise.all([pipeline(client, count(), upstream), pipeline(upstream, count(), client)]);
  } catch {
    // one side left; the other has been closed by the pipelines
  } finally {
    close();
  }
}

function unreached(cause: unknown): PeerDistError {
  return isPeerDistError(cause) ? cause : unreachable('the destination', cause);
}

/** The answer to a CONNECT, behind which the client may begin. */
export function establishedHead(viaName: string): string {
  return `HTTP/1.1 200 Connection Established\r\nVia: 1.1 ${viaName}\r\n\r\n`;
}

/** The 101 with its end-to-end fields; lines are rebuilt, so nothing the origin sent can start a second head. */
function switchingHead(head: IncomingMessage): string {
  const lines = ['HTTP/1.1 101 Switching Protocols', 'Connection: Upgrade', 'Upgrade: websocket'];
  for (const [name, value] of Object.entries(endToEndFields(head.headers))) {
    for (const line of typeof value === 'string' ? [value] : (value ?? [])) {
      if (!/[\r\n\0]/.test(line) && name !== 'content-length') lines.push(`${name}: ${line}`);
    }
  }
  return `${lines.join('\r\n')}\r\n\r\n`;
}
