import type { Clock } from '../clock.ts';
import type { Claims } from '../stores/index.ts';
import type { DescribedContent } from './described-content.ts';

/** Blocks that follow each other and are claimed together, so that asking costs little. Policy, not protocol. */
const GROUP_BLOCKS = 16;
/** Milliseconds another process gets to bring a block; then it is fetched twice. Policy, not protocol. */
const WAIT_MS = 10_000;

interface Group {
  /** Undefined: another process has it. */
  readonly release: Promise<(() => void) | undefined>;
  users: number;
}

/**
 * Single flight across the processes that share a store: who fetches blocks claims them, others wait until they are in the store. It saves
 * WAN bytes, and nothing hangs on it: whoever has waited long enough goes on.
 */
export class BlockClaims {
  readonly #claims: Claims;
  readonly #clock: Clock;
  readonly #groups = new Map<string, Group>();

  constructor(claims: Claims, clock: Clock) {
    this.#claims = claims;
    this.#clock = clock;
  }

  /**
   * Resolves when the block may be fetched.
   *
   * @param look whether it has come meanwhile by another process
   * @returns to be called when it is stored; undefined when `look` has found it
   */
  async enter(
    content: DescribedContent,
    ordinal: number,
    signal: AbortSignal,
    look: () => Promise<boolean>,
  ): Promise<(() => void) | undefined> {
    const name = nameOf(content, ordinal);
    const until = this.#clock.now() + WAIT_MS;
    for (;;) {
      const group = this.#join(name);
      if ((await group.release) !== undefined) return () => this.#leave(name, group);
      this.#leave(name, group);
      const left = until - this.#clock.now();
      if (left <= 0 || signal.aborted) return () => {};
      await this.#wait(name, left, signal);
      if (await look()) return undefined;
    }
  }

  #join(name: string): Group {
    const group = this.#groups.get(name) ?? { release: this.#claims.claim(name), users: 0 };
    group.users += 1;
    this.#groups.set(name, group);
    return group;
  }

  #leave(name: string, group: Group): void {
    group.users -= 1;
    if (group.users > 0 || this.#groups.get(name) !== group) return;
    this.#groups.delete(name);
    void group.release.then((release) => release?.());
  }

  async #wait(name: string, ms: number, signal: AbortSignal): Promise<void> {
    const timeout = new AbortController();
    const cancel = this.#clock.after(ms, () => timeout.abort());
    await this.#claims.released(name, AbortSignal.any([signal, timeout.signal]));
    cancel();
  }
}

function nameOf(content: DescribedContent, ordinal: number): string {
  const { first } = content.ordinals(content.information.range);
  const leader = Math.max(first, ordinal - (ordinal % GROUP_BLOCKS));
  return `blocks\n${content.keyOf(leader)}`;
}
