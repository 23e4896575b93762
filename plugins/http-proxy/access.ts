/** Who may use the proxy, and where to: client networks and the destination rule. */
import { Agent as HttpAgent, type AgentOptions } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { BlockList, connect, isIP, type LookupFunction, Socket, SocketAddress, type TcpNetConnectOpts } from 'node:net';
import { lookup as dnsLookup, type LookupAddress } from 'node:dns';
import { hostname as ownName, networkInterfaces } from 'node:os';
import { connect as tlsConnect, type ConnectionOptions } from 'node:tls';
import { PeerDistError } from '../../lib/errors.ts';

export const PRIVATE_NETWORKS = [
  '127.0.0.0/8',
  '::1',
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  'fc00::/7',
  'fe80::/10',
];

/** Addresses no client from elsewhere may reach through us: loopback, link-local (cloud metadata lives there), unspecified. */
const SHELTERED_NETWORKS = ['127.0.0.0/8', '::1', '169.254.0.0/16', 'fe80::/10', '0.0.0.0/8', '::'];

/** An address as the rules compare it: IPv4-mapped IPv6 becomes IPv4, zones go, and of the many spellings of IPv6 one is left. */
export function plainAddress(address: string | undefined): string {
  const text = address ?? '';
  if (!text.includes(':')) return text;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(text);
  if (mapped !== null) return mapped[1] as string;
  const unzoned = text.replace(/%.*$/, '');
  if (isIP(unzoned) !== 6) return unzoned;
  const canonical = new SocketAddress({ address: unzoned, family: 'ipv6' }).address;
  return canonical.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '');
}

/** Addresses whose membership a set remembers. */
const MAX_KNOWN_ADDRESSES = 4096;

/**
 * A set of networks.
 *
 * @param networks addresses or CIDR blocks
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
 */
export function networkSet(networks: readonly string[]): { has(address: string): boolean } {
  const list = new BlockList();
  for (const network of networks) {
    const [address = '', prefix] = network.split('/');
    const family = isIP(address);
    const bits =
      prefix === undefined ? (family === 4 ? 32 : 128) : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN;
    if (family === 0 || !(bits <= (family === 4 ? 32 : 128))) {
      throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `not a network or address: ${network}`);
    }
    list.addSubnet(address, bits, family === 4 ? 'ipv4' : 'ipv6');
  }
  // The same few clients ask again and again, and a BlockList takes longer than all the rest of a small request.
  const known = new Map<string, boolean>();
  return {
    has(address) {
      if (networks.length === 0) return false;
      let member = known.get(address);
      if (member === undefined) {
        const plain = plainAddress(address);
        const family = isIP(plain);
        member = family !== 0 && list.check(plain, family === 4 ? 'ipv4' : 'ipv6');
        if (known.size === MAX_KNOWN_ADDRESSES) known.clear();
        known.set(address, member);
      }
      return member;
    },
  };
}

const loopback = networkSet(['127.0.0.0/8', '::1']);

export function isLoopback(address: string): boolean {
  return loopback.has(address);
}

export interface DestinationRuleOptions {
  /** Networks, addresses or `host:port` exempt from the rule. */
  readonly allow: readonly string[];
  /** Our own listeners, so that nobody reaches the admin port or makes a loop through us. */
  readonly ownListeners: () => readonly { readonly address: string; readonly port: number }[];
}

/** Decides about one address a connection is about to be made to. It is asked with the very address, after name resolution. */
export class DestinationRule {
  readonly #sheltered = networkSet(SHELTERED_NETWORKS);
  readonly #allowedNetworks: { has(address: string): boolean };
  readonly #allowedHosts: ReadonlySet<string>;
  readonly #ownListeners: DestinationRuleOptions['ownListeners'];

  constructor({ allow, ownListeners }: DestinationRuleOptions) {
    const isHostPort = (entry: string): boolean => /^[^/]+:\d+$/.test(entry) && isIP(entry) === 0;
    this.#allowedHosts = new Set(
      allow.filter(isHostPort).map((entry) => entry.toLowerCase().replace(/^\[(.*)\]:/, '$1:')),
    );
    this.#allowedNetworks = networkSet(allow.filter((entry) => !isHostPort(entry)));
    this.#ownListeners = ownListeners;
  }

  /** @param name as the client named the host */
  permits(name: string, address: string, port: number): boolean {
    const plain = plainAddress(address);
    if (this.#allowedHosts.has(`${name.toLowerCase()}:${port}`) || this.#allowedHosts.has(`${plain}:${port}`))
      return true;
    if (this.#allowedNetworks.has(plain)) return true;
    return !this.#sheltered.has(plain) && !this.#isOwn(plain, port);
  }

  #isOwn(address: string, port: number): boolean {
    return this.#ownListeners().some(
      (own) =>
        own.port === port &&
        (plainAddress(own.address) === address ||
          (isIP(own.address) !== 0 && /^(?:0\.0\.0\.0|::)$/.test(own.address) && isOwnAddress(address))),
    );
  }
}

function isOwnAddress(address: string): boolean {
  return Object.values(networkInterfaces()).some(
    (list) => list?.some((entry) => plainAddress(entry.address) === address) === true,
  );
}

function forbidden(name: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_DESTINATION_FORBIDDEN', `destination ${name} is not allowed`);
}

/**
 * Refuses what can be seen to be forbidden without a look at a name service: for requests that somebody else connects for, under a rule of
 * his own. Literals in any spelling, this machine's own name, and `localhost`.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_DESTINATION_FORBIDDEN`
 */
export function checkVisible(rule: DestinationRule | undefined, name: string, port: number): void {
  if (rule !== undefined && !visibleAddresses(name).every((address) => rule.permits(name, address, port)))
    throw forbidden(name);
}

function visibleAddresses(name: string): readonly string[] {
  if (isIP(name) !== 0) return [name];
  const url = `http://${name.replace(/\.$/, '')}`;
  // 127.1, 0x7f000001 and the like are what `getaddrinfo` makes of them.
  const plain = URL.canParse(url) ? new URL(url).hostname : name.toLowerCase();
  if (isIP(plain) !== 0) return [plain];
  if (/(?:^|\.)localhost$/.test(plain)) return ['127.0.0.1', '::1'];
  if (plain !== ownName().toLowerCase()) return [];
  const own = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return own.filter(({ internal }) => !internal).map(({ address }) => address);
}

/** Connection options under a destination rule: addresses are checked before a connect, names as they resolve. */
export function guarded(options: TcpNetConnectOpts, rule: DestinationRule | undefined): TcpNetConnectOpts {
  if (rule === undefined) return options;
  const name = options.host ?? 'localhost';
  if (isIP(name) !== 0) {
    if (!rule.permits(name, name, options.port)) throw forbidden(name);
    return options;
  }
  const lookup: LookupFunction = (hostname, lookupOptions, callback) => {
    dnsLookup(hostname, { ...lookupOptions, all: true }, (error, addresses: LookupAddress[]) => {
      if (error !== null) return callback(error, '');
      const permitted = addresses.filter(({ address }) => rule.permits(name, address, options.port));
      const [first] = permitted;
      if (first === undefined) return callback(forbidden(name), '');
      return lookupOptions.all === true ? callback(null, permitted) : callback(null, first.address, first.family);
    });
  };
  return { ...options, lookup };
}

export interface Agents {
  readonly http: HttpAgent;
  readonly https: HttpsAgent;
  destroy(): void;
}

/** Sockets to one origin at a time; more requests wait. Policy, not protocol. */
const MAX_SOCKETS_PER_ORIGIN = 1024;
/** Idle origin connections kept. Policy, not protocol. */
const MAX_FREE_SOCKETS = 64;

/** How connections are kept for the next request. */
export const KEPT_CONNECTIONS: AgentOptions & { readonly noDelay: boolean } = {
  keepAlive: true,
  noDelay: true,
  maxSockets: MAX_SOCKETS_PER_ORIGIN,
  maxFreeSockets: MAX_FREE_SOCKETS,
  scheduling: 'lifo',
};

/**
 * Keep-alive agents whose every connection is made under the rule. A pool belongs to one rule: a connection opened for a client that
 * may is never reused for one that may not.
 */
export function createAgents(rule: DestinationRule | undefined, ca: string | undefined): Agents {
  const http = new HttpAgent(KEPT_CONNECTIONS);
  const https = new HttpsAgent({ ...KEPT_CONNECTIONS, ...verified(ca) });
  guardConnections(http, rule);
  guardConnections(https, rule);
  return {
    http,
    https,
    destroy() {
      http.destroy();
      https.destroy();
    },
  };
}

function guardConnections(agent: HttpAgent | HttpsAgent, rule: DestinationRule | undefined): void {
  // Node's types give the options of a request; what arrives are those of a connection.
  const connectable = agent as unknown as {
    createConnection: (options: TcpNetConnectOpts, callback?: unknown) => Socket;
  };
  const createConnection = connectable.createConnection.bind(agent);
  connectable.createConnection = (options, callback) => {
    try {
      return createConnection(guarded(options, rule), callback);
    } catch (error) {
      return failedSocket(error as Error);
    }
  };
}

/** A connection that was refused before it was made, in the shape that Node's agents expect. */
function failedSocket(error: Error): Socket {
  const socket = new Socket();
  process.nextTick(() => socket.destroy(error));
  return socket;
}

/** One connection outside the pools, for tunnels. */
export function openConnection(
  target: { readonly scheme: 'http' | 'https'; readonly hostname: string; readonly port: number },
  rule: DestinationRule | undefined,
  ca: string | undefined,
): Socket {
  const options = guarded({ host: target.hostname, port: target.port, noDelay: true }, rule);
  if (target.scheme === 'http') return connect(options);
  return tlsConnect({
    ...options,
    ...(isIP(target.hostname) === 0 ? { servername: target.hostname } : {}),
    ...verified(ca),
  } as ConnectionOptions);
}

/** Certificates are always verified: nothing in the environment (`NODE_TLS_REJECT_UNAUTHORIZED`) switches that off. */
export function verified(ca: string | undefined): ConnectionOptions {
  return { rejectUnauthorized: true, ...(ca === undefined ? {} : { ca }) };
}
