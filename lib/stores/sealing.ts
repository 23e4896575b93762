/**
 * Seals what leaves this machine for a store that others can read and write. Who holds a server secret can open it; others learn how long it is,
 * when it is used and which entries are of one name, and can bring back an older value of the same name.
 */
import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto';
import { deriveKey } from '../crypto/index.ts';
import type { ServerSecret } from '../protocol/pccrc/index.ts';

/** Version, nonce, ciphertext, tag. */
const VERSION = 1;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const HEAD_BYTES = 1 + NONCE_BYTES;
const SEALING_BYTES = HEAD_BYTES + TAG_BYTES;

const CIPHER = 'aes-256-gcm';
/** What the keys are for. */
const NAMES_LABEL = 'peerdist store: names, version 1';
const VALUES_LABEL = 'peerdist store: values, version 1';

interface Keys {
  readonly names: Uint8Array;
  readonly values: Uint8Array;
}

export class Sealer {
  readonly #current: Keys;
  readonly #all: readonly Keys[];

  /** @param secrets the current one, which seals, then those whose entries can still be opened */
  constructor([current, ...previous]: readonly [current: ServerSecret, ...previous: ServerSecret[]]) {
    this.#current = keysOf(current);
    this.#all = [this.#current, ...previous.map(keysOf)];
  }

  /** What a name is called under each secret, the current one first: 64 hexadecimal digits, from which it cannot be told. */
  names(name: string): readonly [string, ...string[]] {
    const [first, ...others] = this.#all.map(({ names }) => createHmac('sha256', names).update(name).digest('hex'));
    return [first as string, ...others];
  }

  /** @param keyName where it is going to be: it can be opened nowhere else */
  seal(keyName: string, value: Uint8Array): Buffer {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(CIPHER, keyOf(this.#current, keyName), nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(Buffer.from(keyName));
    const text = cipher.update(value);
    return Buffer.concat([Buffer.of(VERSION), nonce, text, cipher.final(), cipher.getAuthTag()]);
  }

  /** @returns undefined for what was not sealed here, with one of the secrets, for this very place */
  open(keyName: string, sealed: Uint8Array): Uint8Array | undefined {
    if (sealed.byteLength < SEALING_BYTES || sealed[0] !== VERSION) return undefined;
    const nonce = sealed.subarray(1, HEAD_BYTES);
    const tag = sealed.subarray(-TAG_BYTES);
    for (const keys of this.#all) {
      const decipher = createDecipheriv(CIPHER, keyOf(keys, keyName), nonce, { authTagLength: TAG_BYTES });
      decipher.setAAD(Buffer.from(keyName)).setAuthTag(tag);
      const value = decipher.update(sealed.subarray(HEAD_BYTES, -TAG_BYTES));
      try {
        decipher.final();
        return value;
      } catch {
        // Perhaps it is of another secret.
      }
    }
    return undefined;
  }

  toJSON(): string {
    return '[sealer]';
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '[sealer]';
  }
}

function keysOf(secret: ServerSecret): Keys {
  const bytes = secret.reveal();
  const keys = { names: deriveKey(bytes, NAMES_LABEL), values: deriveKey(bytes, VALUES_LABEL) };
  bytes.fill(0);
  return keys;
}

/** A key of its own for each place: random nonces of 96 bits do not last for as many values as all the machines of a site may seal. */
function keyOf({ values }: Keys, keyName: string): Uint8Array {
  return createHmac('sha256', values).update(keyName).digest();
}
