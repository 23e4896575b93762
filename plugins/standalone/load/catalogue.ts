/** What a profile's objects are: names, sizes, versions and every byte, as functions of the profile. No body is kept. */
import { createHash } from 'node:crypto';
import type { ByteRange } from '../../../lib/bytes/index.ts';
import { insertPiece, noiseKey, type NoisePiece, NoiseReader } from './noise.ts';
import { type LoadProfile, MAX_OBJECT_BYTES, updateCount, waveCount } from './profile.ts';
import { SeededRandom, Zipf } from './random.ts';

/** Part of every name: raised when the same profile comes to other bytes. */
const FORMAT = 1;
/** Objects with edits whose pieces are remembered. */
const MAX_KEPT_LAYOUTS = 64;
/** When every object was new; versions are a second apart, as far as dates can tell. */
const FIRST_DATE_MS = Date.UTC(2024, 0, 1);

interface Update {
  readonly atMs: number;
  /** Number among all updates: names the inserted bytes. */
  readonly index: number;
  /** Where in the version before it goes, 0 to 1. */
  readonly place: number;
}

interface Layout {
  readonly version: number;
  readonly pieces: readonly NoisePiece[];
}

/** Objects are numbers: first the profile's objects, the most popular one at the front, then the files of its waves. */
export class Catalogue {
  readonly profile: LoadProfile;
  /** Names this content: another profile, if only by its seed, has other names. */
  readonly identity: string;
  /** Objects and waves. */
  readonly count: number;
  readonly #key: Buffer;
  readonly #sizes: Float64Array;
  readonly #updates = new Map<number, Update[]>();
  readonly #wavePlaces: readonly number[];
  readonly #layouts = new Map<number, Layout>();

  constructor(profile: LoadProfile) {
    const { seed, objects, size, waves, updates, zipfExponent } = profile;
    this.profile = profile;
    const content = JSON.stringify([FORMAT, seed, objects, size.medianBytes, size.sigma, waves, updates, zipfExponent]);
    this.identity = createHash('sha256').update(content).digest('hex').slice(0, 10);
    this.count = objects + waveCount(profile);
    this.#key = noiseKey(seed);
    const sizes = new SeededRandom(seed, 'sizes');
    this.#sizes = Float64Array.from({ length: objects }, () => {
      const bytes = Math.round(size.medianBytes * Math.exp(size.sigma * sizes.normal()));
      return Math.min(MAX_OBJECT_BYTES, Math.max(1, bytes));
    });
    this.#planUpdates();
    const places = new SeededRandom(seed, 'wave edits');
    this.#wavePlaces = Array.from({ length: waveCount(profile) }, () => places.next());
  }

  /** Popular objects change more often: those are the ones somebody works on. */
  #planUpdates(): void {
    const { seed, objects, zipfExponent, updates } = this.profile;
    if (updates === undefined) return;
    const random = new SeededRandom(seed, 'updates');
    const popularity = new Zipf(objects, zipfExponent);
    for (let index = 0; index < updateCount(this.profile); index += 1) {
      const object = popularity.pick(random);
      const update = { atMs: (index + 1) * updates.everyMs, index, place: random.next() };
      const others = this.#updates.get(object);
      if (others === undefined) this.#updates.set(object, [update]);
      else others.push(update);
    }
  }

  /** The version that the origin has so long after the start; the first is 0. */
  versionAt(object: number, elapsedMs: number): number {
    return (this.#updates.get(object)?.findLastIndex(({ atMs }) => atMs <= elapsedMs) ?? -1) + 1;
  }

  /** When the next version took this one's place, undefined while none does. */
  replacedAtMs(object: number, version: number): number | undefined {
    return this.#updates.get(object)?.[version]?.atMs;
  }

  bytesOf(object: number, version: number): number {
    const { objects, waves, updates } = this.profile;
    if (object < objects) return (this.#sizes[object] as number) + version * (updates?.editBytes ?? 0);
    return (waves?.bytes ?? 0) + (object - objects) * (waves?.editBytes ?? 0);
  }

  /** Reads a range of an object front to back. */
  read(object: number, version: number, range: ByteRange): NoiseReader {
    return new NoiseReader(this.#key, this.#layout(object, version), range);
  }

  /** Path of its URL. */
  pathOf(object: number): string {
    const { objects } = this.profile;
    const name = object < objects ? `object-${object}` : `wave-${object - objects}`;
    return `/load-${this.identity}/${name}`;
  }

  /** The object under a path, undefined for a path that is none's. */
  objectAt(path: string): number | undefined {
    const match = /^\/load-([0-9a-f]+)\/(object|wave)-(\d{1,9})$/.exec(path);
    const object = Number(match?.[3]) + (match?.[2] === 'wave' ? this.profile.objects : 0);
    return match?.[1] === this.identity && object < this.count && this.pathOf(object) === path ? object : undefined;
  }

  etagOf(object: number, version: number): string {
    return `"${this.identity}-${object}-${version}"`;
  }

  lastModifiedOf(version: number): string {
    return new Date(FIRST_DATE_MS + version * 1000).toUTCString();
  }

  /** The version that a tag names, undefined when it is not one of this object's. */
  versionOf(object: number, etag: string | undefined): number | undefined {
    const version = Number(/-(\d{1,9})"$/.exec(etag ?? '')?.[1]);
    const isKnown = version <= (this.#updates.get(object)?.length ?? 0) && etag === this.etagOf(object, version);
    return isKnown ? version : undefined;
  }

  #layout(object: number, version: number): readonly NoisePiece[] {
    const kept = this.#layouts.get(object);
    if (kept?.version === version) return kept.pieces;
    const { objects } = this.profile;
    const pieces = object < objects ? this.#objectLayout(object, version) : this.#waveLayout(object - objects);
    if (pieces.length > 1) {
      this.#layouts.delete(object);
      this.#layouts.set(object, { version, pieces });
      const [oldest] = this.#layouts.keys();
      if (this.#layouts.size > MAX_KEPT_LAYOUTS) this.#layouts.delete(oldest as number);
    }
    return pieces;
  }

  #objectLayout(object: number, version: number): readonly NoisePiece[] {
    const noise = { kind: 'object', index: object } as const;
    const edits = this.#updates.get(object)?.slice(0, version) ?? [];
    const length = this.profile.updates?.editBytes ?? 0;
    return edits.reduce<readonly NoisePiece[]>(
      (pieces, { index, place }, before) =>
        insertPiece(pieces, Math.floor(place * this.bytesOf(object, before)), {
          noise: { kind: 'update', index },
          offset: 0,
          length,
        }),
      [{ noise, offset: 0, length: this.#sizes[object] as number }],
    );
  }

  #waveLayout(wave: number): readonly NoisePiece[] {
    const { bytes = 0, editBytes = 0 } = this.profile.waves ?? {};
    const first = { noise: { kind: 'wave', index: editBytes === 0 ? wave : 0 }, offset: 0, length: bytes } as const;
    if (editBytes === 0) return [first];
    return this.#wavePlaces.slice(1, wave + 1).reduce<readonly NoisePiece[]>(
      (pieces, place, before) =>
        insertPiece(pieces, Math.floor(place * (bytes + before * editBytes)), {
          noise: { kind: 'wave edit', index: before },
          offset: 0,
          length: editBytes,
        }),
      [first],
    );
  }
}
