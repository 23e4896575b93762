import type { PeerDistAbortError } from '../errors.ts';
import { type Abortable, type Operation, Operations } from './operations.ts';
import type { Session } from './session.ts';

/** What is under way for one publication: its body, a reader of its content information. */
export interface Share {
  /** Aborts what is pending; resolves how many that were. */
  cancel(error: PeerDistAbortError): Promise<number>;
  /** The publication goes: nothing of it may go on. */
  withdraw(error: PeerDistAbortError): Promise<number>;
}

/** What is under way, by publication: what `cancelPending` and `unpublish` reach. */
export class Shares {
  readonly #shares = new Map<string, Set<Share>>();

  join(key: string, share: Share): void {
    this.#shares.set(key, (this.#shares.get(key) ?? new Set()).add(share));
  }

  leave(key: string, share: Share): void {
    const shares = this.#shares.get(key);
    shares?.delete(share);
    if (shares?.size === 0) this.#shares.delete(key);
  }

  /** Tells all shares of a publication; resolves the sum of their answers. */
  async tell(key: string, act: (share: Share) => Promise<number>): Promise<number> {
    const counts = await Promise.all([...(this.#shares.get(key) ?? [])].map(act));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  async tellAll(act: (share: Share) => Promise<number>): Promise<void> {
    for (const key of this.#shares.keys()) await this.tell(key, act);
  }

  /** An operation on a publication: a share for as long as it runs. */
  async run<T>(
    key: string,
    session: Session,
    options: Abortable,
    work: (operation: Operation) => Promise<T>,
    dispose?: (late: T) => void,
  ): Promise<T> {
    const operations = new Operations();
    const cancel = (error: PeerDistAbortError): Promise<number> => operations.cancel(error);
    const share: Share = { cancel, withdraw: cancel };
    this.join(key, share);
    try {
      // Two owners can cancel it: the session, and whoever names the publication.
      return await session.run(
        {},
        (outer) =>
          operations.run(
            options,
            (inner) =>
              work({
                get signal() {
                  return AbortSignal.any([outer.signal, inner.signal]);
                },
                assertWanted() {
                  outer.assertWanted();
                  inner.assertWanted();
                },
              }),
            dispose,
          ),
        dispose,
      );
    } finally {
      this.leave(key, share);
    }
  }
}
