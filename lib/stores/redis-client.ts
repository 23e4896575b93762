/**
 * The one seam to `@redis/client`, an optional package. One client is one connection: when it ends, another client takes its place. Its own
 * reconnecting, its queue for a server that is away and its cluster are not used: they wait where a cache must go on without.
 */
import { PeerDistError } from '../errors.ts';
import type { RedisServer, RedisUrl } from './redis-url.ts';
import { RespGuard } from './resp-guard.ts';

export type RedisArgument = string | Buffer;
/** Values come as bytes, status words as text. */
export type RedisReply = number | string | Buffer | null | readonly RedisReply[];

/** What a connection with TLS is verified with. */
export interface RedisTls {
  /** Certificates of authorities in PEM. @default those Node trusts */
  readonly ca?: string | Buffer | undefined;
  /** Our own certificate and its key in PEM, for a server that asks. */
  readonly cert?: string | Buffer | undefined;
  readonly key?: string | Buffer | undefined;
  /** @default the host of the URL */
  readonly servername?: string | undefined;
}

export interface RedisClient {
  /** Connects and authenticates. */
  open(): Promise<unknown>;
  /** @throws {@link RedisReplyError} when the server refuses */
  send(args: readonly RedisArgument[]): Promise<RedisReply>;
  /** Closes the connection, or stops connecting; everything sent is rejected. */
  destroy(): void;
}

/** @param onLost called when there is no more use in the connection */
export type MakeClient = (server: RedisServer, onLost: (error: Error) => void) => RedisClient;

/** An error the server replied. Its text is not kept: it may repeat keys. */
export class RedisReplyError extends Error {
  override readonly name = 'RedisReplyError';
  /** For example `WRONGTYPE`. */
  readonly code: string;
  /** `host:port` that `MOVED` and `ASK` point at; the host may be missing. */
  readonly target: string | undefined;

  constructor(text: string) {
    const code = /^[A-Z]{1,32}(?= |$)/.exec(text)?.[0] ?? 'ERR';
    super(`Redis replied ${code}`);
    this.code = code;
    this.target = /^(?:MOVED|ASK) \d{1,5} (\S{1,300})$/.exec(text)?.[1];
  }
}

/** The members of a reply; none when it is something else. */
export function membersOf(reply: RedisReply | undefined): readonly RedisReply[] {
  return Array.isArray(reply) ? (reply as readonly RedisReply[]) : [];
}

export function unavailable(message: string, cause?: unknown): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_STORE_UNAVAILABLE', message, { cause });
}

/** Whether a command was refused because under its key is something else. */
export function isWrongType(error: unknown): boolean {
  const { cause } = error as { cause?: unknown };
  return cause instanceof RedisReplyError && cause.code === 'WRONGTYPE';
}

/** RESP2: what every Redis speaks, and a server cannot say anything in it that was not asked. */
const RESP = 2;
/** Type byte of values, which come as bytes. */
const BLOB_STRING = 36;

/** @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE` when the package is not installed */
export async function loadRedis(
  { isTls, username, password, database }: RedisUrl,
  tls: RedisTls | undefined,
  connectTimeoutMs: number,
): Promise<MakeClient> {
  const { createClient, ErrorReply } = await importPackage();
  assertGuardable(createClient({ maintNotifications: 'disabled' }));
  return ({ host, port }, onLost) => {
    // What the package does not destroy is a socket that is still connecting.
    const abort = new AbortController();
    const where = {
      host,
      port,
      signal: abort.signal,
      connectTimeout: connectTimeoutMs,
      reconnectStrategy: false,
    } as const;
    const client = createClient({
      RESP,
      ...(username === undefined ? {} : { username }),
      ...(password === undefined ? {} : { password }),
      database,
      disableOfflineQueue: true,
      disableClientInfo: true,
      maintNotifications: 'disabled',
      commandOptions: { timeout: 0, typeMapping: { [BLOB_STRING]: Buffer } },
      socket: isTls ? { tls: true, ...defined(tls), ...where } : where,
    });
    const ours = (error: Error): Error => (error instanceof ErrorReply ? new RedisReplyError(error.message) : error);
    const fail = (error: Error): never => {
      throw ours(error);
    };
    client.on('error', (error: Error) => onLost(ours(error)));
    // Members that the package calls internal.
    const { decoder } = client._getQueue();
    const guard = new RespGuard();
    const write = decoder.write.bind(decoder);
    decoder.write = (chunk: Uint8Array) => {
      guard.check(chunk);
      write(chunk);
    };
    return {
      open: () => client.connect().catch(fail),
      send: (args) => client.sendCommand<RedisReply>(args).catch(fail),
      destroy() {
        client.destroy();
        abort.abort();
      },
    };
  };
}

/** Node takes an option that is undefined for one that is missing; the types do not. */
function defined(tls: RedisTls = {}): { [Name in keyof RedisTls]?: NonNullable<RedisTls[Name]> } {
  return Object.fromEntries(Object.entries(tls).filter(([, value]) => value !== undefined));
}

/** Without what the guard is put before, the package would believe whatever length a server says. */
function assertGuardable(client: {
  readonly _getQueue?: () => { readonly decoder: { readonly write?: unknown } };
  readonly destroy: () => void;
}): void {
  const isGuardable = typeof client._getQueue?.().decoder.write === 'function';
  client.destroy();
  if (!isGuardable) throw unavailable('this version of the package @redis/client is not known; 6.3 is');
}

async function importPackage(): Promise<typeof import('@redis/client')> {
  try {
    return await import('@redis/client');
  } catch (error) {
    throw unavailable('a store in Redis needs the package @redis/client, which is not installed', error);
  }
}
