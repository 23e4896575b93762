/** The one seam to `@redis/client`, an optional package: how its clients are made, and what is used of them. */
import { PeerDistError } from '../errors.ts';

export type RedisArgument = string | Buffer;
/** Values come as bytes, status words as text. */
export type RedisReply = number | string | Buffer | null | readonly RedisReply[];

/** What a connection with TLS is verified with. */
export interface RedisTls {
  /** Certificates of authorities in PEM. @default those Node trusts */
  readonly ca?: string | Buffer;
  /** Our own certificate and its key in PEM, for a server that asks. */
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
  /** @default the host of the URL */
  readonly servername?: string;
}

/** What single clients and clusters of the package have in common, as far as it is used. */
export interface Client {
  connect(): Promise<unknown>;
  destroy(): void;
  on(event: 'error', listener: (error: Error) => void): unknown;
  on(event: 'ready', listener: () => void): unknown;
  readonly isOpen: boolean;
}
export interface SingleClient extends Client {
  sendCommand(args: readonly RedisArgument[]): Promise<unknown>;
}
export interface ClusterClient extends Client {
  readonly masters: readonly { readonly id: string }[];
  nodeClient(master: unknown): Promise<SingleClient>;
  sendCommand(key: string, isReadonly: boolean, args: readonly RedisArgument[]): Promise<unknown>;
}

export interface RedisClients {
  /** Undefined where it is known to be a cluster. */
  readonly makeSingle: (() => SingleClient) | undefined;
  readonly makeCluster: () => ClusterClient;
}

/** Milliseconds for one attempt to connect, and the longest pause between two. Policy, not protocol. */
export const CONNECT_TIMEOUT_MS = 2_000;
const MAX_PAUSE_MS = 3_000;
/** Commands that may wait for an answer. Policy, not protocol. */
export const MAX_IN_FLIGHT = 1_024;
/** RESP2 is what every Redis speaks. Type of values, which come as bytes. */
const RESP = 2;
const BLOB_STRING = 36;

/**
 * How to connect to what a URL names.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a URL that is none; `ERR_PEERDIST_STORE_UNAVAILABLE` when the package is not
 * installed
 */
export async function redisClients(url: string, tls?: RedisTls): Promise<RedisClients> {
  const servers = parseRedisUrl(url);
  const { createClient, createCluster } = await importPackage();
  const options = {
    RESP,
    disableOfflineQueue: true,
    disableClientInfo: true,
    maintNotifications: 'disabled',
    commandsQueueMaxLength: MAX_IN_FLIGHT,
    commandOptions: { typeMapping: { [BLOB_STRING]: Buffer } },
    socket: {
      ...(servers[0]?.protocol === 'rediss:' ? { tls: true as const, ...tls } : {}),
      connectTimeout: CONNECT_TIMEOUT_MS,
      reconnectStrategy: (retries: number) => Math.min(50 * 2 ** Math.min(retries, 10), MAX_PAUSE_MS),
    },
  } as const;
  const single = (): SingleClient => createClient({ ...options, url: String(servers[0]) });
  const cluster = (): ClusterClient => {
    const { username, password } = servers[0] as URL;
    const login =
      password === '' ? {} : { username: decodeURIComponent(username), password: decodeURIComponent(password) };
    const rootNodes = servers.map((server) => ({ ...options, url: String(server) }));
    return createCluster({
      RESP,
      commandOptions: options.commandOptions,
      rootNodes,
      defaults: { ...options, ...login },
    });
  };
  return { makeSingle: servers.length > 1 ? undefined : single, makeCluster: cluster };
}

export function unavailable(message: string, cause?: unknown): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_STORE_UNAVAILABLE', message, { cause });
}

/** Whether a command was refused because under its key is something else. */
export function isWrongType(error: unknown): boolean {
  const { cause } = error as { cause?: unknown };
  return cause instanceof Error && cause.message.startsWith('WRONGTYPE');
}

/** The members of a reply; none when it is something else. */
export function membersOf(reply: RedisReply | undefined): readonly RedisReply[] {
  return Array.isArray(reply) ? (reply as readonly RedisReply[]) : [];
}

/** Whether it is an error that Redis replied, and no connection that broke. */
export function isRefusal(error: unknown): boolean {
  return error instanceof Error && /^(?!CLUSTERDOWN|LOADING|MASTERDOWN)[A-Z]+ /.test(error.message);
}

/** In the words of the system; of what Redis says, the first: the others may repeat a password it did not expect. */
export function reasonOf(error: Error | undefined): string {
  if (error === undefined) return '';
  const said = /^[A-Z]{2,32}(?= |$)/.exec(error.message)?.[0];
  // Where a host has several addresses, there is no message.
  const text = said ?? (error.message === '' ? String((error as NodeJS.ErrnoException).code) : error.message);
  return ` (${text.replaceAll(/[^ -~]/g, '?').slice(0, 200)})`;
}

export function destroy(client: Client | undefined): void {
  try {
    // One that was just connecting would stay connected.
    client?.on('ready', () => client.destroy());
    client?.destroy();
  } catch {
    // It was never open.
  }
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`, which never repeats the URL: it may have a password */
function parseRedisUrl(text: string): readonly URL[] {
  const [, scheme, login = '', hosts = '', database = ''] =
    /^(rediss?:\/\/)([^@/]*@)?([^/?#]+)(\/\d{0,5})?\/?$/.exec(text) ?? [];
  const urls = hosts
    .split(',')
    .map((host) => URL.parse?.(`${scheme}${login}${host}${database}`) ?? tryUrl(`${scheme}${login}${host}${database}`));
  if (scheme === undefined || urls.some((url) => url === undefined || url.hostname === ''))
    throw new PeerDistError(
      'ERR_PEERDIST_INVALID_OPTION',
      'the URL of Redis is not one like redis://user:password@host:6379',
    );
  if (urls.length > 1 && Number(database.slice(1)) > 0)
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', 'a cluster of Redis has no database numbers');
  return urls as URL[];
}

function tryUrl(text: string): URL | undefined {
  try {
    return new URL(text);
  } catch {
    return undefined;
  }
}

async function importPackage(): Promise<typeof import('@redis/client')> {
  try {
    return await import('@redis/client');
  } catch (error) {
    throw unavailable('a store in Redis needs the package @redis/client, which is not installed', error);
  }
}
