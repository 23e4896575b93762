/** URLs that somebody has, in place of the tool's own origin: lines `URL [sha256]`, the most popular first. */
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { PeerDistError } from '../../../lib/errors.ts';
import type { PlannedRequest, Stock } from './plan.ts';
import type { AnswerHead, BodyCheck, Failure, Subject } from './subject.ts';

const MAX_URLS = 100_000;
const MAX_LIST_BYTES = 32 * 1024 * 1024;

interface Entry {
  readonly url: URL;
  /** SHA-256 of the body, hex, where the list says so. */
  readonly digest: string | undefined;
}

/** Bodies are checked whole: against the digest of the list, or against the first download with the same validator. */
export class UrlList implements Subject, Stock {
  readonly #entries: readonly Entry[];
  /** What each URL was when it was last downloaded. */
  readonly #seen = new Map<number, { readonly validator: string; readonly digest: string }>();
  /** Answers with nothing to compare them with. */
  unchecked = 0;

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` with the number of the line that is wrong */
  constructor(text: string) {
    this.#entries = text
      .split('\n')
      .map((line, index) => ({ line: line.trim(), number: index + 1 }))
      .filter(({ line }) => line !== '' && !line.startsWith('#'))
      .map(({ line, number }) => parseEntry(line, number));
    if (this.#entries.length === 0) throw invalid('the list has no URL');
    if (this.#entries.length > MAX_URLS) throw invalid(`the list has more than ${MAX_URLS} URLs`);
  }

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
  static read(file: string): UrlList {
    try {
      if (statSync(file).size > MAX_LIST_BYTES) throw invalid(`${file} is larger than ${MAX_LIST_BYTES} bytes`);
      return new UrlList(readFileSync(file, 'utf8'));
    } catch (error) {
      if (error instanceof PeerDistError) throw error;
      throw invalid(`cannot read ${file}: ${(error as NodeJS.ErrnoException).code}`);
    }
  }

  get count(): number {
    return this.#entries.length;
  }

  versionAt(): number {
    return 0;
  }

  /** Nobody knows; plans of lists have neither ranges nor aborts. */
  bytesOf(): number {
    return 0;
  }

  urlOf(object: number): { readonly authority: string; readonly path: string } {
    const { host, pathname, search } = (this.#entries[object] as Entry).url;
    return { authority: host, path: `${pathname}${search}` };
  }

  check({ object }: PlannedRequest, { status, headers }: AnswerHead): BodyCheck | Failure {
    if (status !== 200) return 'status';
    const hash = createHash('sha256');
    const validator = headers.etag ?? headers['last-modified'];
    return {
      push: (bytes) => {
        hash.update(bytes);
        return true;
      },
      end: () => (this.#isRight(object, validator, hash.digest('hex')) ? undefined : 'wrongBytes'),
    };
  }

  #isRight(object: number, validator: string | undefined, digest: string): boolean {
    const { digest: listed } = this.#entries[object] as Entry;
    if (listed !== undefined) return listed === digest;
    const seen = this.#seen.get(object);
    if (validator !== undefined && seen?.validator === validator) return seen.digest === digest;
    this.unchecked += 1;
    if (validator !== undefined) this.#seen.set(object, { validator, digest });
    return true;
  }
}

function parseEntry(line: string, number: number): Entry {
  const [text = '', digest, ...rest] = line.split(/\s+/);
  if (!/^http:\/\//i.test(text) || !URL.canParse(text)) throw invalid(`line ${number} does not begin with an http URL`);
  if (rest.length > 0 || (digest !== undefined && !/^[0-9a-f]{64}$/i.test(digest)))
    throw invalid(`line ${number} has something else than a SHA-256 in hex behind its URL`);
  return { url: new URL(text), digest: digest?.toLowerCase() };
}

function invalid(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `--urls: ${message}`);
}
