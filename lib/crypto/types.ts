/** The one seam to hash functions. Everything above asks a {@link HashProvider}; nothing else imports a hash library. */

export type DigestName = 'sha256' | 'sha384' | 'sha512';

/** A digest in the making. */
export interface IncrementalDigest {
  /** Takes the next bytes; they are consumed at once and not retained. */
  update(data: Uint8Array): void;
  /** Ends it and writes the digest, cut to `length` bytes, to `target` at `offset`: many small results need no array each. */
  finishInto(target: Buffer, offset: number, length: number): void;
}

export interface HashProvider {
  /** For reports and error messages. */
  readonly name: 'native' | 'noble';
  /** Digest of one piece of data. The result is fresh; `data` is not retained. */
  digest(algorithm: DigestName, data: Uint8Array): Uint8Array;
  createDigest(algorithm: DigestName): IncrementalDigest;
  /** HMAC (RFC 2104) of the concatenation of `data`. The result is fresh. */
  hmac(algorithm: DigestName, key: Uint8Array, ...data: readonly Uint8Array[]): Uint8Array;
}
