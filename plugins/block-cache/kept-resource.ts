/** A resource as it is kept in records: JSON, beside the content information of its parts. */
import type { Clock } from '../../lib/clock.ts';
import { type HeaderFields, validatorsOf } from '../../lib/http/index.ts';
import type { PeerDist } from '../../lib/peerdist/index.ts';
import type { RecordStore } from '../../lib/stores/index.ts';
import { cachedHead, CachedResource, openPart } from './cached-resource.ts';
import { Freshness, type FreshnessRules } from './freshness.ts';

/** What is kept of a resource, as JSON, beside its content information. */
export interface KeptResource {
  readonly status: number;
  readonly statusText: string | undefined;
  /** Bytes of the content. */
  readonly contentLength: number;
  readonly head: HeaderFields;
  readonly rules: FreshnessRules;
  readonly isPlain: boolean;
  readonly parts: readonly { readonly informationName: string; readonly base: number; readonly isPrivate: boolean }[];
}

export function encodeResource(resource: CachedResource): Uint8Array {
  const { status, statusText, length = 0, head, freshness, isPlain, parts } = resource;
  const kept: KeptResource = {
    status,
    statusText,
    contentLength: length,
    head,
    rules: freshness.rules,
    isPlain,
    parts: parts.map(({ informationName, base, isPrivate }) => ({ informationName, base, isPrivate })),
  };
  return Buffer.from(JSON.stringify(kept));
}

/** What {@link encodeResource} has made. @throws {SyntaxError} */
export function parseKeptResource(bytes: Uint8Array): KeptResource {
  return { parts: [], ...(JSON.parse(Buffer.from(bytes).toString()) as Partial<KeptResource>) } as KeptResource;
}

/**
 * Opens a resource as {@link encodeResource} made it; the caller holds it. Parts whose content information has gone are left out.
 *
 * @returns undefined when nothing is left of its content
 * @throws {@link PeerDistError} when what is there cannot be read
 */
export async function decodeResource(
  bytes: Uint8Array,
  { peerdist, records, clock }: { peerdist: PeerDist; records: RecordStore; clock: Clock },
): Promise<CachedResource | undefined> {
  const { status, statusText, contentLength, head, rules, isPlain, parts } = parseKeptResource(bytes);
  const resource = new CachedResource({
    status,
    statusText,
    validators: validatorsOf(head),
    head: cachedHead(head),
    freshness: new Freshness(rules, clock),
    length: contentLength,
    isPlain,
  });
  try {
    for (const { informationName, base, isPrivate } of parts) {
      const encoded = await records.get(informationName);
      if (encoded !== undefined) resource.addPart(await openPart(peerdist, encoded, { base, isPrivate }));
    }
  } catch (error) {
    resource.release();
    throw error;
  }
  if (resource.parts.length > 0 || contentLength === 0) return resource;
  resource.release();
  return undefined;
}
