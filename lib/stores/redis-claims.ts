import { randomBytes } from 'node:crypto';
import { type Clock, systemClock } from '../clock.ts';
import type { Claims } from './claims.ts';
import type { RedisConnection } from './redis-connection.ts';
import { assertPrefix, DEFAULT_PREFIX } from './redis-names.ts';
import type { Sealer } from './sealing.ts';

export interface RedisClaimsOptions {
  readonly connection: RedisConnection;
  readonly sealer: Sealer;
  /** Before every key. @default `peerdist:` */
  readonly prefix?: string | undefined;
  readonly clock?: Clock | undefined;
}

/** Milliseconds until a claim is free whose holder has died, and how often one that lives renews it. Policy, not protocol. */
const CLAIM_MS = 10_000;
const RENEW_MS = 3_000;
/** Milliseconds a claim of another version may last; what lasts longer is none. */
const MAX_CLAIM_MS = 300_000;
/** Milliseconds between two looks whether a claim is free. Policy, not protocol. */
const POLL_MS = 100;
const TOKEN_BYTES = 16;

/** ARGV: token, milliseconds, the most they can be. What is there for ever is nobody's claim. */
const CLAIM = `
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
local left = redis.call('PTTL', KEYS[1])
if left >= 0 and left <= tonumber(ARGV[3]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`;
/** ARGV: token, milliseconds. */
const RENEW = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])`;
/** ARGV: token. */
const RELEASE = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])`;

/** Work that one of all that use a Redis does at a time. What is worked on cannot be told from what is in Redis. */
export class RedisClaims implements Claims {
  readonly #connection: RedisConnection;
  readonly #sealer: Sealer;
  readonly #prefix: string;
  readonly #clock: Clock;

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a prefix that cannot be one */
  constructor({ connection, sealer, prefix = DEFAULT_PREFIX, clock = systemClock }: RedisClaimsOptions) {
    this.#connection = connection;
    this.#sealer = sealer;
    this.#prefix = assertPrefix(prefix);
    this.#clock = clock;
  }

  async claim(name: string): Promise<(() => void) | undefined> {
    const key = this.#key(name);
    const token = randomBytes(TOKEN_BYTES).toString('hex');
    try {
      const args = [token, String(CLAIM_MS), String(MAX_CLAIM_MS)];
      if ((await this.#connection.run(CLAIM, [key], args)) === 0) return undefined;
    } catch {
      // Nobody can be asked: everybody may. It may have arrived all the same, so it is given back like any other.
    }
    return this.#hold(key, token);
  }

  async released(name: string, signal: AbortSignal): Promise<void> {
    const key = this.#key(name);
    while (!signal.aborted) {
      try {
        const left = await this.#connection.send(key, ['PTTL', key]);
        if (typeof left !== 'number' || left < 0 || left > MAX_CLAIM_MS) return;
      } catch {
        return;
      }
      await this.#pause(signal);
    }
  }

  #key(name: string): string {
    return `${this.#prefix}c:${this.#sealer.names(name)[0]}`;
  }

  #hold(key: string, token: string): () => void {
    let cancel = (): void => {};
    const renew = (): void => {
      cancel = this.#clock.after(RENEW_MS, renew);
      this.#connection.run(RENEW, [key], [token, String(CLAIM_MS)]).catch(() => {});
    };
    cancel = this.#clock.after(RENEW_MS, renew);
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      cancel();
      this.#connection.run(RELEASE, [key], [token]).catch(() => {});
    };
  }

  #pause(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        cancel();
        signal.removeEventListener('abort', done);
        resolve();
      };
      const cancel = this.#clock.after(POLL_MS, done);
      signal.addEventListener('abort', done);
    });
  }
}
