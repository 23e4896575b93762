import { deriveKey, type HashProvider } from '../../crypto/index.ts';
import { PeerDistError } from '../../errors.ts';
import type { ContentHashAlgorithm } from './constants.ts';

/**
 * The administrator's secret key, from which every segment secret is derived (MS-PCCRC 2.2, 2.5).
 *
 * Opaque: it prints as a placeholder and does not serialise. Whoever holds it can test guesses against everything published.
 */
export class ServerSecret {
  readonly #secretKey: Uint8Array;

  /**
   * @param secretKey any bytes, at least one; copied
   * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_PARAMETER` when empty
   */
  constructor(secretKey: Uint8Array) {
    if (secretKey.byteLength === 0) {
      throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'the server secret is empty');
    }
    this.#secretKey = Uint8Array.from(secretKey);
  }

  /** The UTF-8 bytes of a text. */
  static fromText(text: string): ServerSecret {
    return new ServerSecret(Buffer.from(text, 'utf8'));
  }

  /** The bytes Windows makes of a pass phrase given to `netsh branchcache set key`: UTF-16LE without a terminator. */
  static fromUtf16(text: string): ServerSecret {
    return new ServerSecret(Buffer.from(text, 'utf16le'));
  }

  /** Ks: the hash of the secret key, `algorithm.hashBytes` long (MS-PCCRC 2.2). A fresh array. */
  key(provider: HashProvider, algorithm: ContentHashAlgorithm): Uint8Array {
    return provider.digest(algorithm.digest, this.#secretKey).subarray(0, algorithm.hashBytes);
  }

  /**
   * A secret for another use, see {@link deriveKey}.
   *
   * @param use what it is for
   */
  derive(use: string): ServerSecret {
    return new ServerSecret(deriveKey(this.#secretKey, use));
  }

  /** A copy of the secret key, for another thread of this process or the file that keeps it. It must not be shown or logged. */
  reveal(): Uint8Array {
    return Uint8Array.from(this.#secretKey);
  }

  toJSON(): string {
    return '[server secret]';
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '[server secret]';
  }
}
