import type { Download, Live, Neighbour, SavedContent } from './facts.ts';

/** Entries of a list that are shown. Policy. */
export const MAX_SHOWN = 20;
/** Contents that are counted; past that the one that has saved least makes room. Policy. */
const MAX_CONTENTS = 1_024;

/** Which contents have saved most, in a bounded memory. */
export class SavedContents {
  readonly #contents = new Map<string, { savedBytes: number; requests: number }>();

  add(url: string, savedBytes: number): void {
    const known = this.#contents.get(url);
    if (known !== undefined) {
      known.savedBytes += savedBytes;
      known.requests += 1;
      return;
    }
    if (this.#contents.size >= MAX_CONTENTS) this.#makeRoom();
    this.#contents.set(url, { savedBytes, requests: 1 });
  }

  top(): SavedContent[] {
    return best([...this.#contents].map(([url, counts]) => ({ url, ...counts })));
  }

  /** A quarter at a time, so that a flood of new names does not cost a search each. */
  #makeRoom(): void {
    const order = [...this.#contents].toSorted(([, a], [, b]) => a.savedBytes - b.savedBytes);
    for (const [url] of order.slice(0, MAX_CONTENTS / 4)) this.#contents.delete(url);
  }
}

/** What several processes of one service are doing, as one. */
export function mergeLive(all: readonly Live[]): Live {
  return {
    neighbours: mergeNeighbours(all.flatMap(({ neighbours }) => neighbours)),
    downloads: all
      .flatMap(({ downloads }) => downloads)
      .toSorted((a: Download, b: Download) => b.seconds - a.seconds)
      .slice(0, MAX_SHOWN),
    downloadCount: all.reduce((sum, { downloadCount }) => sum + downloadCount, 0),
    contents: mergeContents(all.flatMap(({ contents }) => contents)),
  };
}

const WORST_FIRST: readonly Neighbour['state'][] = ['avoided', 'doubtful', 'answers', 'new'];

/** Each once, by what is worst that anybody has found. */
function mergeNeighbours(neighbours: readonly Neighbour[]): Neighbour[] {
  const byName = new Map<string, Neighbour>();
  const rank = ({ state }: Neighbour): number => WORST_FIRST.indexOf(state);
  for (const neighbour of neighbours) {
    const key = `${neighbour.kind} ${neighbour.name}`;
    const known = byName.get(key);
    if (known === undefined || rank(neighbour) < rank(known)) byName.set(key, neighbour);
  }
  return [...byName.values()].slice(0, MAX_SHOWN);
}

function mergeContents(contents: readonly SavedContent[]): SavedContent[] {
  const byUrl = new Map<string, SavedContent>();
  for (const { url, savedBytes, requests } of contents) {
    const known = byUrl.get(url);
    byUrl.set(url, {
      url,
      savedBytes: savedBytes + (known?.savedBytes ?? 0),
      requests: requests + (known?.requests ?? 0),
    });
  }
  return best([...byUrl.values()]);
}

function best(contents: readonly SavedContent[]): SavedContent[] {
  return contents
    .filter(({ savedBytes }) => savedBytes > 0)
    .toSorted((a, b) => b.savedBytes - a.savedBytes)
    .slice(0, MAX_SHOWN);
}
