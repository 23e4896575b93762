/** One worker at a time does what needs to be done once: the leader's desk, and the worker's way to it. */
import type { Claims } from '../../../lib/stores/index.ts';
import type { Channel } from './channel.ts';

/** Milliseconds for the leader's answer; then everybody may. Policy. */
const CLAIM_TIMEOUT_MS = 1_000;
/** Claims one worker may hold; further ones are granted and not written down. Policy, not protocol. */
const MAX_CLAIMS = 65_536;

interface Claim {
  readonly worker: number;
  /** Times it was given to that worker and not given back. */
  grants: number;
  readonly waiters: (() => void)[];
}

/** Kept by the leader. */
export class ClaimsDesk {
  readonly #claims = new Map<string, Claim>();
  readonly #counts = new Map<number, number>();

  /** @returns whether the worker has it now */
  claim(worker: number, name: string): boolean {
    const held = this.#claims.get(name);
    if (held !== undefined) {
      if (held.worker === worker) held.grants += 1;
      return held.worker === worker;
    }
    const count = this.#counts.get(worker) ?? 0;
    if (count >= MAX_CLAIMS) return true;
    this.#counts.set(worker, count + 1);
    this.#claims.set(name, { worker, grants: 1, waiters: [] });
    return true;
  }

  release(worker: number, name: string): void {
    const held = this.#claims.get(name);
    if (held?.worker !== worker) return;
    held.grants -= 1;
    if (held.grants > 0) return;
    this.#claims.delete(name);
    this.#counts.set(worker, (this.#counts.get(worker) ?? 1) - 1);
    for (const wake of held.waiters) wake();
  }

  /** Resolves when nobody has it. */
  async released(name: string): Promise<void> {
    const held = this.#claims.get(name);
    if (held === undefined) return;
    await new Promise<void>((resolve) => {
      held.waiters.push(resolve);
    });
  }

  /** A worker is gone, and everything it was doing with it. */
  leave(worker: number): void {
    for (const [name, held] of this.#claims) {
      if (held.worker !== worker) continue;
      held.grants = 1;
      this.release(worker, name);
    }
    this.#counts.delete(worker);
  }
}

/** Put by a worker. What several of its own readers want is not its business: they share a flight. */
export class RemoteClaims implements Claims {
  readonly #channel: Channel;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  async claim(name: string): Promise<(() => void) | undefined> {
    const release = (): void => this.#channel.tell('release', name);
    let isLate = false;
    const late = new Promise<'late'>((resolve) => {
      setTimeout(() => resolve('late'), CLAIM_TIMEOUT_MS).unref();
    });
    const asked = this.#channel.call('claim', name).then((isGranted) => {
      if (isLate && isGranted === true) release();
      return isGranted === true;
    });
    asked.catch(() => {});
    try {
      const answer = await Promise.race([asked, late]);
      isLate = answer === 'late';
      if (isLate) return () => {};
      return answer === true ? release : undefined;
    } catch {
      return () => {};
    }
  }

  async released(name: string, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const aborted = new Promise<void>((resolve) => {
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
    await Promise.race([this.#channel.call('released', name).catch(() => {}), aborted]);
  }
}
