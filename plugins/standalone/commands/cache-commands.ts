/** `peerdist cache`: looks into the stores on disk of a state directory, checks and clears them, with or without proxies running on them. */
import { setImmediate as yieldToOthers } from 'node:timers/promises';
import { type Command, Option } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import { type KeptContent, keptContents, purgeContent, type Purged, urlsOf } from '../kept/kept-contents.ts';
import { formatTime, type KeptStats, statsOf, statsTable } from '../kept/kept-stats.ts';
import { type KeptStore, type KeptStores, ROLES, withEachRole } from '../kept/kept-stores.ts';
import { clearStore, verifyStore } from '../kept/kept-upkeep.ts';
import { stateOption } from '../options/store-options.ts';
import type { RoleName } from '../roles/stores.ts';
import { ProgressBar } from '../progress.ts';
import type { Terminal } from '../terminal.ts';
import { formatBytes, parseDuration } from '../options/units.ts';

interface CacheValues {
  readonly stateDir: string;
  readonly role?: RoleName;
}

interface ReportValues extends CacheValues {
  readonly json?: true;
}

/** Lines printed before others get their turn. Policy. */
const PRINTED_TOGETHER = 1000;
const NO_URLS = 'a hosted cache has no URLs: it knows its blocks by the IDs of their segments';

export function addCacheCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  const { print, warn } = terminal;
  const cache = program.command('cache').description('the stores on disk, whether or not proxies are running on them');
  const add = (name: string, description: string): Command =>
    cache
      .command(name)
      .description(description)
      .addOption(stateOption('where the stores are'))
      .addOption(new Option('--role <role>', 'only the stores of one (default all that are there)').choices(ROLES));
  const eachRole = (values: CacheValues, act: (stores: KeptStores) => Promise<void>): Promise<void> =>
    withEachRole(values, warn, act);
  const stopSignal = (): AbortSignal => {
    const stopped = new AbortController();
    void terminal.stopRequested.then(() => stopped.abort());
    return stopped.signal;
  };
  const tellStopped = (): void => {
    warn('peerdist: stopped before everything was done');
    exit(1);
  };

  add('stats', 'what is in them')
    .option('--json', 'print JSON')
    .action(async (values: ReportValues) => {
      const rows: KeptStats[] = [];
      await eachRole(values, async ({ role, all }) => void rows.push(...all.map((each) => statsOf(role, each))));
      print(values.json === true ? JSON.stringify(rows, undefined, 2) : statsTable(rows));
    });

  add('list', 'the contents known by URL, the one used last first')
    .option('--json', 'print JSON')
    .action(async (values: ReportValues) => {
      const stop = stopSignal();
      const contents: KeptContent[] = [];
      await eachRole(values, async ({ role, records }) => {
        if (role === 'hosted') warn(NO_URLS);
        if (records === undefined) return;
        for await (const each of keptContents(role, records)) {
          if (stop.aborted) return;
          contents.push(each);
        }
      });
      contents.sort((a, b) => b.usedAt - a.usedAt);
      for await (const line of values.json === true ? jsonLines(contents) : textLines(contents)) {
        if (stop.aborted) return tellStopped();
        print(line);
      }
    });

  add('verify', 'read everything against its hash; what is damaged is deleted, and exit is 1')
    .option('--json', 'print JSON')
    .action(async (values: ReportValues) => {
      const stop = stopSignal();
      const sums = { blocks: 0, records: 0, bad: 0 };
      await eachRole(values, async ({ role, all }) => {
        for (const each of all) {
          const { verified, bad } = await verifyWithBar(role, each, stop);
          sums[each.kind] += verified;
          sums.bad += bad;
        }
      });
      const { blocks, records, bad } = sums;
      print(
        values.json === true ? JSON.stringify(sums) : `${blocks} blocks and ${records} records verified, ${bad} bad`,
      );
      if (bad > 0) exit(1);
      if (stop.aborted) tellStopped();
    });

  add('purge', 'delete one content in all its variants, with blocks that it shares with others')
    .argument('<url>', 'as `peerdist cache list` shows it')
    .action(async (url: string, values: CacheValues) => {
      const urls = urlsOf(url);
      if (urls.length === 0)
        throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `not an http or https URL: ${visible(url)}`);
      let [isKnown, hasUrls] = [false, false];
      await eachRole(values, async (stores) => {
        hasUrls ||= stores.role !== 'hosted';
        for (const each of urls) {
          const purged = await purgeContent(stores, each);
          if (purged === undefined) continue;
          isKnown = true;
          print(`${stores.role}: deleted ${purgedText(stores.role, purged)} of ${visible(each)}`);
        }
      });
      if (isKnown) return;
      warn(`peerdist: ${hasUrls ? `not known here: ${visible(url)}` : NO_URLS}`);
      exit(1);
    });

  add('clear', 'delete everything; the files keep their size, and have room again')
    .option('--older-than <time>', 'only what was not used for so long, 30d or 12h', parseDuration)
    .action(async ({ olderThan, ...values }: CacheValues & { readonly olderThan?: number }) => {
      const stop = stopSignal();
      const before = olderThan === undefined ? Infinity : (Date.now() - olderThan) / 1000;
      await eachRole(values, async ({ role, all }) => {
        const gone: string[] = [];
        // Records first: from then on nobody is led to the blocks.
        for (const each of all.toReversed()) {
          const { entries, bytes } = await clearStore(each, before, stop);
          gone.unshift(`${entries} ${each.kind} (${formatBytes(bytes)})`);
        }
        print(`${role}: deleted ${gone.join(' and ')}`);
      });
      if (stop.aborted) tellStopped();
    });
}

async function verifyWithBar(role: RoleName, kept: KeptStore, stop: AbortSignal): ReturnType<typeof verifyStore> {
  const bar = new ProgressBar('{step} {bar} {percentage}%  {eta_formatted} left');
  const total = kept.store.count;
  const show = (verified: number): void => bar.show(`${role} ${kept.kind}`, verified, total);
  show(0);
  try {
    return await verifyStore(kept, show, stop);
  } finally {
    bar.stop();
  }
}

function purgedText(role: RoleName, { blocks, bytes }: Purged): string {
  return role === 'reverse' || (role === 'head' && blocks === 0)
    ? 'the content information'
    : `${blocks} blocks (${formatBytes(bytes)})`;
}

async function* textLines(contents: readonly KeptContent[]): AsyncGenerator<string> {
  for (const [at, { role, url, bytes, usedAt }] of contents.entries()) {
    // What was printed is held until others get their turn.
    if (at % PRINTED_TOGETHER === 0) await yieldToOthers();
    yield `${formatTime(usedAt)}  ${role.padEnd(7)}  ${formatBytes(bytes).padStart(10)}  ${visible(url)}`;
  }
}

/** A line for each: there may be more than fits into one string. */
async function* jsonLines(contents: readonly KeptContent[]): AsyncGenerator<string> {
  if (contents.length === 0) yield '[]';
  for (const [at, { role, url, bytes, usedAt }] of contents.entries()) {
    if (at % PRINTED_TOGETHER === 0) await yieldToOthers();
    const object = visible(JSON.stringify({ role, url, bytes, usedAt: formatTime(usedAt) }));
    yield `${at === 0 ? '[' : ' '}${object}${at + 1 === contents.length ? ']' : ','}`;
  }
}

/** Control characters, and what turns the direction of a line, as JSON writes them. */
function visible(text: string): string {
  const escape = (unit: string): string => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return text.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => character.split('').map(escape).join(''));
}
