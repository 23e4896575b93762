/** The contents a role knows by URL: what its records of resources say, and what has to go with one of them. */
import { nativeHashProvider } from '../../../lib/crypto/index.ts';
import { isPeerDistError } from '../../../lib/errors.ts';
import { durableKeyOf } from '../../../lib/peerdist/publisher.ts';
import { decodeContentInformation } from '../../../lib/protocol/pccrc/index.ts';
import { DescribedContent } from '../../../lib/services/index.ts';
import {
  type LmdbBlockStore,
  type LmdbRecordStore,
  RecordContentInformationStore,
  resourceKeyOf,
  resourceName,
  resourceVariants,
} from '../../../lib/stores/index.ts';
import { parseKeptResource } from '../../block-cache/index.ts';
import { parsePublishedResource } from '../../content-server/index.ts';
import type { KeptStores } from './kept-stores.ts';
import { PUBLISHED_RECORDS } from '../roles/head-role.ts';
import { PUBLISHER } from '../roles/roles.ts';
import type { RoleName } from '../roles/stores.ts';

/** A content as its URL is known. */
export interface KeptContent {
  readonly role: RoleName;
  /** As the proxy was asked for it. */
  readonly url: string;
  /** Bytes of the content. */
  readonly bytes: number;
  /** Seconds since 1970. */
  readonly usedAt: number;
}

/** What went. */
export interface Purged {
  readonly blocks: number;
  /** Bytes of the blocks. */
  readonly bytes: number;
}

/** Blocks deleted together. Policy. */
const DELETED_TOGETHER = 1024;

/** Every content of a role, in no order; a URL comes once for each different content that its variants have. */
export async function* keptContents(role: RoleName, records: LmdbRecordStore): AsyncGenerator<KeptContent> {
  // A head knows most of them twice: as published, and as blocks.
  const seen = role === 'head' ? new Set<string>() : undefined;
  for await (const { name, value, usedAt } of records.all()) {
    for (const { prefix, isPublished } of placesOf(role)) {
      const url = name.startsWith(prefix) ? resourceKeyOf(name.slice(prefix.length)) : undefined;
      if (url === undefined) continue;
      for (const bytes of contentsOf(isPublished, value).values()) {
        const content = `${bytes} ${url}`;
        if (seen?.has(content) === true) continue;
        seen?.add(content);
        yield { role, url, bytes, usedAt };
      }
    }
  }
}

/** Where a role's records of resources are among its records, and whether what they name is published. */
function placesOf(role: RoleName): readonly { readonly prefix: string; readonly isPublished: boolean }[] {
  const own = { prefix: '', isPublished: role === 'reverse' };
  return role === 'head' ? [{ prefix: PUBLISHED_RECORDS, isPublished: true }, own] : [own];
}

/**
 * Deletes the contents of a URL, all variants, and announces it to the proxies that are running.
 *
 * @param url as {@link urlsOf} makes it
 * @returns undefined when it is not known
 * @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE`
 */
export async function purgeContent({ role, blocks, records }: KeptStores, url: string): Promise<Purged | undefined> {
  if (records === undefined) return undefined;
  const purged = { blocks: 0, bytes: 0 };
  let isKnown = false;
  for (const { prefix, isPublished } of placesOf(role)) {
    const record = prefix + resourceName(url);
    const value = await records.get(record);
    if (value === undefined) continue;
    isKnown = true;
    // First of all: from now on nobody is led to the rest.
    await records.delete(record);
    for (const name of contentsOf(isPublished, value).keys()) {
      if (isPublished) await unpublish(records, name);
      else {
        const of = await purgeDescribed(records, blocks, name);
        purged.blocks += of.blocks;
        purged.bytes += of.bytes;
      }
    }
  }
  return isKnown ? purged : undefined;
}

/** The keys a proxy may know a URL by: as it is typed, host in lower case (as `plugins/http-proxy` reads it), and as browsers write it. */
export function urlsOf(typed: string): readonly string[] {
  const match = /^(https?):\/\/([^/?#]+)([^#]*)/i.exec(typed);
  if (match === null || !URL.canParse(typed)) return [];
  const [, scheme = '', authority = '', rest = ''] = match;
  const target = rest.startsWith('/') ? rest : `/${rest}`;
  const { protocol, host, pathname, search } = new URL(typed);
  return [
    ...new Set([
      `${scheme.toLowerCase()}://${authority.toLowerCase()}${target}`,
      `${protocol}//${host}${pathname}${search}`,
    ]),
  ];
}

/** Bytes of each content that the variants of a resource have, by the name its content information is kept under. */
function contentsOf(isPublished: boolean, record: Uint8Array): Map<string, number> {
  return new Map(
    resourceVariants(record).flatMap((variant): [string, number][] => {
      if (isPublished) {
        const { contentId, contentLength } = parsePublishedResource(variant);
        return [[contentId, contentLength]];
      }
      const { parts, contentLength } = parseKeptResource(variant);
      // An answer without a body has no content information, and is listed all the same.
      if (parts.length === 0) return [['', contentLength]];
      // The content is counted once, however many parts it lies in.
      return parts.map(({ informationName }, index) => [informationName, index === 0 ? contentLength : 0]);
    }),
  );
}

async function unpublish(records: LmdbRecordStore, contentId: string): Promise<void> {
  const published = new RecordContentInformationStore({ records, memoryBytes: 1 });
  await published.delete(durableKeyOf(PUBLISHER, contentId));
}

/** The blocks that content information names, and itself. */
async function purgeDescribed(
  records: LmdbRecordStore,
  blocks: LmdbBlockStore | undefined,
  informationName: string,
): Promise<Purged> {
  const encoded = await records.get(informationName);
  const content = encoded && describe(encoded);
  await records.delete(informationName);
  const purged = { blocks: 0, bytes: 0 };
  if (content === undefined || blocks === undefined) return purged;
  const { range } = content.information;
  if (range.length === 0) return purged;
  const { first, last } = content.ordinals(range);
  for (let from = first; from <= last; from += DELETED_TOGETHER) {
    // A content may have the same block in many places.
    const lengths = new Map<string, number>();
    for (let ordinal = from; ordinal <= Math.min(last, from + DELETED_TOGETHER - 1); ordinal += 1)
      lengths.set(content.keyOf(ordinal), content.block(ordinal).length);
    const purge = async ([key, length]: [string, number]): Promise<void> => {
      if (!(await blocks.purge(key))) return;
      purged.blocks += 1;
      purged.bytes += length;
    };
    await Promise.all([...lengths].map(purge));
  }
  return purged;
}

function describe(encoded: Uint8Array): DescribedContent | undefined {
  try {
    return new DescribedContent(decodeContentInformation(encoded), nativeHashProvider);
  } catch (error) {
    if (isPeerDistError(error)) return undefined;
    throw error;
  }
}
