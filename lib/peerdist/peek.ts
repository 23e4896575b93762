/** How an operation stands. */
export type OperationState<T> =
  | { readonly state: 'pending' }
  | { readonly state: 'fulfilled'; readonly value: T }
  | { readonly state: 'rejected'; readonly reason: unknown };

const PENDING = { state: 'pending' } as const;

/** Looks at an operation without waiting for it (Win32: GetOverlappedResult with bWait = false). */
export function peek<T>(operation: Promise<T>): Promise<OperationState<T>> {
  return Promise.race([
    operation.then(
      (value) => ({ state: 'fulfilled', value }) as const,
      (reason: unknown) => ({ state: 'rejected', reason }) as const,
    ),
    // Behind the reactions of a promise that has settled.
    Promise.resolve().then(() => PENDING),
  ]);
}
