/** Work that one of several processes, or machines, does at a time, and the others wait for or do without. */
export interface Claims {
  /**
   * Takes the work unless somebody else has it. Never rejects: when nobody can be asked, everybody may.
   *
   * @returns what gives it back, to be called once; undefined when it is somebody else's
   */
  claim(name: string): Promise<(() => void) | undefined>;
  /** Resolves when nobody has the work, when that cannot be known, or with the signal. Never rejects. */
  released(name: string, signal: AbortSignal): Promise<void>;
}
