import { MultiBar, SingleBar } from 'cli-progress';

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

/** Bars of what is under way that are shown beneath that of all. */
const MAX_BARS = 8;

/** A bar for all, and one for each of the first that are under way, on stderr where that is a terminal. */
export class ProgressBars {
  readonly #bars: MultiBar;
  readonly #all: SingleBar | undefined;
  readonly #each: readonly SingleBar[];

  /**
   * @param format of the bar for all: as for {@link ProgressBar}
   * @param formatEach of the others, the same
   * @param count how many are under way at a time
   */
  constructor(format: string, formatEach: string, count: number) {
    this.#bars = new MultiBar({
      format,
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      linewrap: false,
      gracefulExit: false,
      etaBuffer: 100,
    });
    const isSeen = process.stderr.isTTY;
    this.#all = isSeen ? this.#bars.create(0, 0) : undefined;
    this.#each = Array.from({ length: isSeen ? Math.min(count, MAX_BARS) : 0 }, () =>
      this.#bars.create(1, 0, { name: '', amount: '' }, { format: formatEach }),
    );
  }

  show(done: number, total: number, payload: object): void {
    this.#all?.setTotal(total);
    this.#all?.update(done, payload);
  }

  /** @param at which of those under way, from 0 */
  showOne(at: number, done: number, total: number, payload: object): void {
    this.#each[at]?.setTotal(Math.max(total, 1));
    this.#each[at]?.update(done, payload);
  }

  stop(): void {
    if (this.#all !== undefined) this.#bars.stop();
  }
}
