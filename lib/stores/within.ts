import type { Clock } from '../clock.ts';

/** Resolves with the promise, which must not reject, or when time is up. */
export async function within(clock: Clock, ms: number, promise: Promise<unknown>): Promise<void> {
  let cancel = (): void => {};
  const over = new Promise<void>((resolve) => {
    cancel = clock.after(ms, resolve);
  });
  await Promise.race([promise, over]);
  cancel();
}
