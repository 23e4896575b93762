import type { Clock } from '../clock.ts';
import type { Claims } from '../stores/index.ts';
import type { BlockRequest } from './block-source.ts';
import type { DescribedContent } from './described-content.ts';

/** Blocks that are claimed together, so that asking costs little. Policy, not protocol. */
const GROUP_BLOCKS = 64;
/** Blocks ahead of a reader that are claimed with the one it wants: its transfer is going to pass them. Policy, not protocol. */
const AHEAD_BLOCKS = 256;
/** Milliseconds another process gets to bring a block, and in which nobody waits again for a stretch that it did not bring. Policy, not protocol. */
const PATIENCE_MS = 3_000;
const ALONE_MS = 30_000;
/** Milliseconds between two looks into the store. Policy, not protocol. */
const LOOK_MS = 25;
/** Stretches that are remembered for it; the oldest is forgotten. */
const MAX_ALONE = 1_024;

interface Group {
  /** Undefined: another process has it. */
  readonly release: Promise<(() => void) | undefined>;
  /** The other process has it no longer. */
  isFree: boolean;
  isReleased: boolean;
  users: number;
}

/**
 * Single flight across the processes that share a store: who brings blocks claims them and what its transfer is going to pass next, the others find
 * them in the store as they come. It saves WAN bytes, and nothing hangs on it: whoever has waited long enough goes on alone.
 */
export class BlockClaims {
  readonly #claims: Claims;
  readonly #clock: Clock;
  readonly #groups = new Map<string, Group>();
  /** Until when nobody waits for a group. */
  readonly #alone = new Map<string, number>();

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
    request: Pick<BlockRequest, 'content' | 'ordinal' | 'lastOrdinal'>,
    signal: AbortSignal,
    look: () => Promise<boolean>,
  ): Promise<(() => void) | undefined> {
    const [name, ...ahead] = namesOf(request) as [string, ...string[]];
    for (const until = this.#clock.now() + PATIENCE_MS; ;) {
      if (this.#clock.now() < (this.#alone.get(name) ?? 0)) return () => {};
      const group = this.#join(name);
      if ((await group.release) !== undefined) {
        const groups = ahead.map((each) => [each, this.#join(each)] as const);
        return () => {
          for (const [each, joined] of [[name, group] as const, ...groups]) this.#leave(each, joined);
        };
      }
      const found = await this.#watch(group, until, signal, look);
      this.#leave(name, group);
      if (found === 'found') return undefined;
      if (found === 'aborted') return () => {};
      if (found === 'late') this.#goAlone(name);
    }
  }

  /** Looks for the block until it is there, nobody brings it any more, or time is up. */
  async #watch(
    group: Group,
    until: number,
    signal: AbortSignal,
    look: () => Promise<boolean>,
  ): Promise<'found' | 'free' | 'late' | 'aborted'> {
    for (;;) {
      if (await look()) return 'found';
      if (signal.aborted) return 'aborted';
      if (group.isFree) return 'free';
      if (this.#clock.now() >= until) return 'late';
      await new Promise<void>((resolve) => {
        this.#clock.after(LOOK_MS, resolve);
      });
    }
  }

  #join(name: string): Group {
    let group = this.#groups.get(name);
    if (group === undefined || group.isReleased) {
      const made: Group = { release: this.#claims.claim(name), isFree: false, isReleased: false, users: 0 };
      void made.release.then((release) => (release === undefined ? this.#follow(name, made) : undefined));
      this.#groups.set(name, made);
      group = made;
    }
    group.users += 1;
    return group;
  }

  /** Hears when the other process is done with it. */
  async #follow(name: string, group: Group): Promise<void> {
    await this.#claims.released(name, new AbortController().signal);
    group.isFree = true;
    // Whoever comes now asks anew.
    if (this.#groups.get(name) === group) this.#groups.delete(name);
  }

  #leave(name: string, group: Group): void {
    group.users -= 1;
    if (group.users > 0) return;
    void group.release.then((release) => {
      // What another process has is remembered until that is done with it; and somebody may have come back.
      if (release === undefined || group.users > 0 || group.isReleased) return;
      group.isReleased = true;
      if (this.#groups.get(name) === group) this.#groups.delete(name);
      release();
    });
  }

  #goAlone(name: string): void {
    this.#alone.delete(name);
    this.#alone.set(name, this.#clock.now() + ALONE_MS);
    if (this.#alone.size > MAX_ALONE) this.#alone.delete(this.#alone.keys().next().value as string);
  }
}

/** The group of a block, and those its reader goes on to. */
function namesOf({
  content,
  ordinal,
  lastOrdinal,
}: Pick<BlockRequest, 'content' | 'ordinal' | 'lastOrdinal'>): string[] {
  const { first } = content.ordinals(content.information.range);
  const names: string[] = [];
  const end = Math.min(lastOrdinal, ordinal + AHEAD_BLOCKS);
  for (let at = ordinal - (ordinal % GROUP_BLOCKS); at <= end; at += GROUP_BLOCKS)
    names.push(nameOf(content, Math.max(first, at)));
  return names;
}

function nameOf(content: DescribedContent, leader: number): string {
  return `blocks\n${content.keyOf(leader)}`;
}
