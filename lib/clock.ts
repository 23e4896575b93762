/** Time, injected: production uses {@link systemClock}, tests turn the hands themselves and never sleep. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
  /** Calls back once after `ms`, unless cancelled. The timer never keeps the process alive. Returns the cancel function. */
  after(ms: number, callback: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  after(ms, callback) {
    let immediate: NodeJS.Immediate | undefined;
    // When the process itself was busy for so long, what has arrived meanwhile is handled first: nobody is blamed for our delay.
    const expire = (): void => {
      immediate = setImmediate(callback);
    };
    // Past this, Node would fire at once.
    const timer = setTimeout(expire, Math.min(ms, 0x7fff_ffff)).unref();
    return () => {
      clearTimeout(timer);
      clearImmediate(immediate);
    };
  },
};
