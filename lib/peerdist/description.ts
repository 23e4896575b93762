import { assertBytes, type ByteRange } from '../bytes/index.ts';
import type { HashProvider } from '../crypto/index.ts';
import { PeerDistError } from '../errors.ts';
import { type ContentInformationVersion, decodeContentInformation } from '../protocol/pccrc/index.ts';
import { DescribedContent } from '../services/index.ts';

export interface ContentDescription {
  readonly version: ContentInformationVersion;
  /** Bytes covered by the content information; reads and holes stay inside. */
  readonly range: ByteRange;
}

/** Bytes of content information one handle takes: a terabyte in version 2. Policy, not protocol. */
const MAX_CONTENT_INFORMATION_BYTES = 1024 * 1024 * 1024;

/** Content information as it comes in pieces, and what it becomes. */
export class Description {
  readonly #provider: HashProvider;
  readonly #isPrivate: boolean;
  #pieces: Uint8Array[] = [];
  #bytes = 0;
  #content: DescribedContent | undefined;
  #failure: unknown;

  constructor(provider: HashProvider, isPrivate: boolean) {
    this.#provider = provider;
    this.#isPrivate = isPrivate;
  }

  get phase(): 'describing' | 'ready' | 'failed' {
    if (this.#failure !== undefined) return 'failed';
    return this.#content === undefined ? 'describing' : 'ready';
  }

  /** Set once complete. */
  get content(): DescribedContent | undefined {
    return this.#content;
  }

  get summary(): ContentDescription | undefined {
    const information = this.#content?.information;
    return information && { version: information.version, range: information.range };
  }

  /** @throws {@link PeerDistError} `LIMIT`, repeated from then on; `ALREADY_COMPLETED` */
  add(chunk: Uint8Array): void {
    this.#assertDescribing();
    assertBytes(chunk);
    this.#bytes += chunk.byteLength;
    if (this.#bytes > MAX_CONTENT_INFORMATION_BYTES)
      this.fail(new PeerDistError('ERR_PEERDIST_LIMIT', 'too much content information'));
    if (chunk.byteLength > 0) this.#pieces.push(Uint8Array.from(chunk));
    // Fed byte by byte, a list of pieces would cost a hundred times the bytes.
    if (this.#pieces.length >= 1024) this.#pieces = [Buffer.concat(this.#pieces)];
  }

  /** @throws {@link PeerDistError} `CANNOT_PARSE_CONTENTINFO`, `CONTENTINFO_VERSION_UNSUPPORTED`, repeated from then on; `ALREADY_COMPLETED` */
  complete(): DescribedContent {
    this.#assertDescribing();
    try {
      const information = decodeContentInformation(Buffer.concat(this.#pieces));
      information.checkBlockLists(this.#provider);
      this.#content = new DescribedContent(information, this.#provider, this.#isPrivate);
      return this.#content;
    } catch (error) {
      return this.fail(error);
    } finally {
      this.clear();
    }
  }

  /** Frees pieces that have not been parsed. */
  clear(): void {
    this.#pieces = [];
  }

  /** What has been taken can no longer be known, or is wrong. */
  fail(error: unknown): never {
    this.#failure ??= error;
    this.clear();
    throw error;
  }

  #assertDescribing(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#content !== undefined)
      throw new PeerDistError('ERR_PEERDIST_ALREADY_COMPLETED', 'the content information is sealed');
  }
}
