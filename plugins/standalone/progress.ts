import { SingleBar } from 'cli-progress';

/** A progress bar on stderr, seen only where that is a terminal. It appears with the first progress, and anew with each step. */
export class ProgressBar {
  readonly #bar: SingleBar;
  #step: string | undefined;

  /** @param format `{bar}`, `{percentage}`, `{eta_formatted}` and what is given as payload */
  constructor(format: string) {
    this.#bar = new SingleBar({
      format,
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      etaBuffer: 100,
    });
  }

  /** @param step what is being done; another one starts the bar again */
  show(step: string, done: number, total: number, payload: object = {}): void {
    if (step === this.#step) this.#bar.update(done, payload);
    else this.#bar.start(total, done, { step: step.padEnd(8), ...payload });
    this.#step = step;
  }

  stop(): void {
    this.#bar.stop();
  }
}
