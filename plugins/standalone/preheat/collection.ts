/** What is going to be preheated: URLs of several sources, each once, with what is known of their bodies. */
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import { printable } from '../config/discretion.ts';

/** URLs of one run; the largest component of Debian has 70,000 packages. Policy. */
export const MAX_URLS = 100_000;
/** Characters of a URL (sitemaps.org: fewer than 2,048). */
const MAX_URL_CHARACTERS = 2048;
/** Failures kept with their reasons; all are counted. Policy. */
const MAX_FAILURES_KEPT = 1_000;

export interface Item {
  readonly url: string;
  /** Of the body, where a source says so. */
  readonly bytes?: number;
  /** SHA-256 of the body, lower-case hex, where a source says so. */
  readonly sha256?: string;
}

export interface Failure {
  readonly url: string;
  readonly reason: string;
}

/** Failures with their reasons, the first of them. */
export class Failures {
  count = 0;
  readonly kept: Failure[] = [];

  add(url: string, error: unknown): Failure {
    const failure = { url: printable(url), reason: printable((error as Error).message) };
    this.count += 1;
    if (this.kept.length < MAX_FAILURES_KEPT) this.kept.push(failure);
    return failure;
  }
}

export class Collection {
  /** Sources, and names within them, that cannot be read. */
  readonly failures = new Failures();
  /** How many URLs are not asked for, by reason. Reasons are a closed list. */
  readonly leftOut = new Map<string, number>();
  readonly #items = new Map<string, Item>();
  readonly #match: RegExp | undefined;

  /** @param match what a URL must match to be taken */
  constructor(match: RegExp | undefined) {
    this.#match = match;
  }

  get items(): readonly Item[] {
    return [...this.#items.values()];
  }

  /** Whether a URL matches; one that does not is counted. */
  isWanted(url: string): boolean {
    if (this.#match === undefined || this.#match.test(url)) return true;
    this.leaveOut('does not match');
    return false;
  }

  /**
   * Takes a URL, unless it is there already or does not match.
   *
   * @throws {@link PeerDistError} `ERR_PEERDIST_LIMIT` when there are too many
   */
  add(item: Item): void {
    if (!this.isWanted(item.url)) return;
    // What says what the body must be is of more use.
    if (this.#items.has(item.url) && item.sha256 === undefined) return;
    if (this.#items.size >= MAX_URLS && !this.#items.has(item.url)) throw new TooManyUrls();
    this.#items.set(item.url, item);
  }

  leaveOut(reason: 'does not match' | 'of another host' | 'no http or https URL'): void {
    this.leftOut.set(reason, (this.leftOut.get(reason) ?? 0) + 1);
  }

  /** Notes why something of a source cannot be had. @throws the error when nothing can be had after it: no proxy, too many URLs, stopped */
  fail(url: string, error: unknown, signal: AbortSignal): void {
    if (signal.aborted || isFinal(error)) throw error;
    this.failures.add(url, error);
  }
}

function isFinal(error: unknown): boolean {
  return (
    error instanceof TooManyUrls ||
    !isPeerDistError(error) ||
    isPeerDistError(error, 'ERR_PEERDIST_SERVICE_UNAVAILABLE')
  );
}

/** Not a part of them: nobody could say which. */
export class TooManyUrls extends PeerDistError {
  constructor() {
    super('ERR_PEERDIST_LIMIT', `more than ${MAX_URLS} URLs: take fewer with --match`);
  }
}

/** A URL as it is asked for, without its fragment; undefined for anything that cannot be preheated. */
export function webUrl(text: string): string | undefined {
  if (text.length >= MAX_URL_CHARACTERS || !/^https?:\/\//i.test(text) || !URL.canParse(text)) return undefined;
  const url = new URL(text);
  // Answers to credentials are not shared.
  if (url.username !== '' || url.password !== '') return undefined;
  url.hash = '';
  return url.href;
}
