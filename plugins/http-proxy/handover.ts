/** Connections that Node hands over: CONNECT and Upgrade, which end as tunnels, or as the last answer of their connection. */
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { PeerDistError } from '../../lib/errors.ts';
import { fieldValue, listMembers } from '../../lib/http/index.ts';
import type { Next } from '../../lib/kit/index.ts';
import { plainAddress } from './access.ts';
import { badRequest } from './errors.ts';
import type { Exchange } from './exchange.ts';
import { checkLoop, type IncomingRules, readHost, readRequest } from './incoming.ts';
import type { Interception } from './intercept.ts';
import { connectTarget, parseAuthority } from './options.ts';
import { answerOnSocket, connectTunnel, refuse, type TunnelContext, upgradeTunnel } from './tunnel.ts';
import { isAnswering, WaitingClient } from './waiting-client.ts';

export interface HandoverComponents {
  /** @throws {@link PeerDistError} `ERR_PEERDIST_CLIENT_FORBIDDEN` */
  readonly admit: (message: IncomingMessage) => void;
  readonly begin: (message: IncomingMessage) => Exchange;
  /** @throws {@link PeerDistError} `ERR_PEERDIST_BAD_REQUEST` for a request on a connection that is for another host */
  readonly rulesFor: (message: IncomingMessage) => IncomingRules;
  readonly chain: Next;
  readonly connectPorts: ReadonlySet<number>;
  readonly interception: Interception | undefined;
  readonly tunnel: TunnelContext;
}

export class Handover {
  readonly #components: HandoverComponents;

  constructor(components: HandoverComponents) {
    this.#components = components;
  }

  attach(server: Server): void {
    const takeOver =
      (tunnel: (message: IncomingMessage, socket: Duplex, head: Buffer) => Promise<void>) =>
      (message: IncomingMessage, socket: Duplex, head: Buffer): void => {
        // Behind an answer that is still being written there is no room for another one, nor for a tunnel.
        if (isAnswering(socket)) {
          socket.on('error', () => {}).destroy();
          return;
        }
        tunnel(message, socket, head).catch(() => socket.destroy());
      };
    server.on(
      'upgrade',
      takeOver((message, socket, head) => this.#upgrade(message, socket, head)),
    );
    server.on(
      'connect',
      takeOver((message, socket, head) => this.#connect(message, socket, head, server)),
    );
  }

  async #connect(message: IncomingMessage, socket: Duplex, head: Buffer, server: Server): Promise<void> {
    const { admit, begin, rulesFor, connectPorts, interception, tunnel } = this.#components;
    const client = new WaitingClient(socket, head);
    const exchange = begin(message);
    try {
      admit(message);
      if (rulesFor(message).origin !== undefined) throw badRequest('CONNECT is for a forward proxy');
      readHost(message);
      const via = fieldValue(message.headers, 'via');
      checkLoop(via, tunnel.viaName);
      const { hostname, port } = parseAuthority(message.url ?? '') ?? {};
      if (hostname === undefined || port === undefined || port === 0) throw badRequest('malformed CONNECT target');
      if (!connectPorts.has(port)) {
        throw new PeerDistError('ERR_PEERDIST_DESTINATION_FORBIDDEN', `CONNECT to port ${port} is not allowed`);
      }
      const address = plainAddress(message.socket.remoteAddress);
      if (interception?.isListed(hostname) === true) {
        const rule = tunnel.ruleFor(address);
        const failure = await interception.accept(server, client, { hostname, port }, rule);
        return exchange.endIntercepted(failure);
      }
      const watched = observedBy(exchange, tunnel);
      const target = { scheme: 'http', hostname, port } as const;
      return exchange.endTunnel(await connectTunnel(target, { address, via }, client, watched));
    } catch (error) {
      exchange.fails(error);
      return exchange.endTunnel(await refuse(message, client, error, tunnel));
    }
  }

  async #upgrade(message: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const { admit, begin, rulesFor, chain, tunnel } = this.#components;
    const client = new WaitingClient(socket, head);
    const exchange = begin(message);
    try {
      admit(message);
      const rules = rulesFor(message);
      const request = readRequest(message, rules, () => client.signal, exchange.watcher);
      // Node has let go of the socket, so a body could not be told from what follows it.
      if (request.body !== null) throw badRequest('a body together with Upgrade');
      if (listMembers(message.headers.upgrade).includes('websocket')) {
        const { scheme } = request;
        const target = { scheme, ...connectTarget(rules.origin?.authority ?? request.authority, scheme) };
        const watched = observedBy(exchange, tunnel);
        return exchange.endTunnel(await upgradeTunnel(message, request, target, client, watched));
      }
      // Any other protocol is politely ignored (RFC 9110 7.8), but this is the connection's last answer.
      const response = exchange.answered(await chain(request));
      return exchange.endTunnel(await answerOnSocket(message, client, response, tunnel));
    } catch (error) {
      exchange.fails(error);
      return exchange.endTunnel(await refuse(message, client, error, tunnel));
    }
  }
}

/** What a tunnel is made with: its bytes are told to whoever follows the exchange too. */
function observedBy({ watcher }: Exchange, tunnel: TunnelContext): TunnelContext {
  const { observer } = tunnel;
  if (watcher === undefined) return tunnel;
  return {
    ...tunnel,
    observer: (observation) => {
      observer(observation);
      watcher.observe(observation);
    },
  };
}
