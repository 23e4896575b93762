/**
 * Sitemaps and indexes of sitemaps (sitemaps.org), also packed. Read by a strict, namespace-aware parser as they come; a document type, with
 * which XML attacks begin, is refused.
 */
import { TextDecoder } from 'node:util';
import { SaxesParser } from 'saxes';
import { PeerDistError } from '../../../lib/errors.ts';
import { printable } from '../config/discretion.ts';
import { type Collection, webUrl } from './collection.ts';
import { openDocument, type Reading, unpacked } from './document.ts';

/** sitemaps.org: entries, and bytes when unpacked, of one file. */
const MAX_ENTRIES = 50_000;
const MAX_SITEMAP_BYTES = 50 * 1024 * 1024;
/** Sitemaps read for one URL, and indexes inside each other, of which sitemaps.org allows none. Policy. */
const MAX_SITEMAPS = 1_000;
const MAX_INDEX_DEPTH = 4;
/** Elements inside each other; extensions need 5. Looking up a prefix costs as many steps. Policy. */
const MAX_ELEMENT_DEPTH = 32;
/** Characters of a location that are kept; a longer one is no URL. Policy. */
const MAX_LOCATION_CHARACTERS = 4096;

export interface Sitemap {
  readonly isIndex: boolean;
  /** As they stand there. */
  readonly locations: readonly string[];
}

/**
 * Puts what a sitemap lists into a collection. One that cannot be read counts as a failure, and those beside it are read.
 *
 * @param anyHost false: only what lies on the host of the sitemap is taken
 * @throws {@link PeerDistError} when nothing else can be read either
 */
export async function readSitemaps(
  first: string,
  collection: Collection,
  reading: Reading,
  anyHost: boolean,
): Promise<void> {
  const seen = new Set([first]);
  const hosts = new Set([new URL(first).host]);
  const waiting = [{ url: first, depth: 1 }];
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
    try {
      const { url, body } = await openDocument(next.url, MAX_SITEMAP_BYTES, reading);
      // A site may lead to its right name.
      if (next.url === first) hosts.add(new URL(url).host);
      const { isIndex, locations } = await parseSitemap(unpacked(body, MAX_SITEMAP_BYTES));
      if (isIndex && next.depth === MAX_INDEX_DEPTH)
        throw invalid(`more than ${MAX_INDEX_DEPTH} indexes in each other`);
      for (const location of locations) {
        const found = webUrl(location);
        if (found === undefined) collection.leaveOut('no http or https URL');
        else if (!anyHost && !hosts.has(new URL(found).host)) collection.leaveOut('of another host');
        else if (!isIndex) collection.add({ url: found });
        // Indexes may name each other.
        else if (!seen.has(found)) {
          if (seen.size === MAX_SITEMAPS)
            throw new PeerDistError('ERR_PEERDIST_LIMIT', `it leads to more than ${MAX_SITEMAPS} sitemaps`);
          seen.add(found);
          waiting.push({ url: found, depth: next.depth + 1 });
        }
      }
    } catch (error) {
      collection.fail(next.url, error, reading.signal);
    }
  }
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_ORIGIN_PROTOCOL` for anything but a whole sitemap, `ERR_PEERDIST_LIMIT` */
export async function parseSitemap(body: AsyncIterable<Uint8Array>): Promise<Sitemap> {
  const parser = new SaxesParser({ xmlns: true, position: false });
  const locations: string[] = [];
  /** Local names of the open elements; undefined for one of another vocabulary. */
  const open: (string | undefined)[] = [];
  let root: { readonly uri: string; readonly local: string } | undefined;
  let text: string | undefined;
  parser.on('doctype', () => {
    throw invalid('a document type, which no sitemap has');
  });
  parser.on('error', (cause) => {
    throw invalid('not well-formed XML', cause);
  });
  parser.on('opentag', ({ uri, local }) => {
    root ??= { uri, local };
    if (root.local !== 'urlset' && root.local !== 'sitemapindex')
      throw invalid(`not a sitemap: it begins with <${printable(root.local.slice(0, 40))}>`);
    if (open.length >= MAX_ELEMENT_DEPTH) throw invalid('elements too deep');
    open.push(uri === root.uri ? local : undefined);
    if (isLocation(open)) text = '';
  });
  const addText = (piece: string): void => {
    if (text !== undefined) text = (text + piece).slice(0, MAX_LOCATION_CHARACTERS);
  };
  parser.on('text', addText);
  parser.on('cdata', addText);
  parser.on('closetag', () => {
    if (isLocation(open) && text !== undefined) {
      if (locations.length === MAX_ENTRIES)
        throw new PeerDistError('ERR_PEERDIST_LIMIT', `a sitemap of more than ${MAX_ENTRIES} entries`);
      locations.push(text.trim());
      text = undefined;
    }
    open.pop();
  });
  const decoder = new TextDecoder('utf-8', { fatal: true });
  for await (const chunk of body) parser.write(decoded(decoder, chunk));
  parser.write(decoded(decoder)).close();
  return { isIndex: root?.local === 'sitemapindex', locations };
}

/** `loc` of `url` or `sitemap`, not that of a picture. */
function isLocation([, entry, name, ...rest]: readonly (string | undefined)[]): boolean {
  return rest.length === 0 && name === 'loc' && (entry === 'url' || entry === 'sitemap');
}

function decoded(decoder: TextDecoder, chunk?: Uint8Array): string {
  try {
    return chunk === undefined ? decoder.decode() : decoder.decode(chunk, { stream: true });
  } catch (cause) {
    throw invalid('not UTF-8', cause);
  }
}

function invalid(message: string, cause?: unknown): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', message, { cause });
}
