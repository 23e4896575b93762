import type { HashProvider } from '../crypto/index.ts';
import type {
  ContentInformation,
  ContentInformationVersion,
  ServerSecret,
  V1AlgorithmName,
} from '../protocol/pccrc/index.ts';
import { type SegmentAccumulator, V1Accumulator, V2Accumulator } from './segment-accumulator.ts';

export interface HashingOptions {
  readonly provider: HashProvider;
  readonly secret: ServerSecret;
  /** Formats to make. @default [1, 2]: the first plain answer must make both available (MS-PCCRTP, fact 2) */
  readonly versions?: readonly ContentInformationVersion[] | undefined;
  /** Hash of version 1. @default 'sha256', the only one Windows clients consume */
  readonly algorithm?: V1AlgorithmName | undefined;
}

/** Where the hashing of one body happens. `push` may ask to wait: that is ordinary stream pressure. */
export interface HashingEngine {
  push(chunk: Uint8Array): void | Promise<void>;
  /** One result for each version asked for. */
  finish(): readonly ContentInformation[] | Promise<readonly ContentInformation[]>;
  /** Frees what the engine holds. Safe at any time, also after `finish`. */
  abort(): void;
}

/** Hashes on the calling thread. */
export class InlineHashing implements HashingEngine {
  readonly #accumulators: readonly SegmentAccumulator[];

  constructor({ provider, secret, versions = [1, 2], algorithm }: HashingOptions) {
    this.#accumulators = versions.map((version) =>
      version === 1 ? new V1Accumulator(provider, secret, algorithm) : new V2Accumulator(provider, secret),
    );
  }

  push(chunk: Uint8Array): void {
    for (const accumulator of this.#accumulators) accumulator.push(chunk);
  }

  finish(): readonly ContentInformation[] {
    return this.#accumulators.map((accumulator) => accumulator.finish());
  }

  abort(): void {
    // nothing outside this object
  }
}
