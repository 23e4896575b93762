/**
 * Access logs whose savings are known, because they were planned: every scene below says itself what each way saves. Nothing here looks at the replay.
 *
 * A site plays its scenes one after the other, each with contents and clients of its own, so that no scene changes what another saves.
 */
import { pick, words } from './random.ts';

export interface Truth {
  requests: number;
  wanBytes: number;
  oneSided: number;
  peers: number;
  hosted: number;
  /** What one-sided and hosted cache save besides if they are twice as large. */
  withTwice: number;
}

export interface PlannedLine {
  readonly second: number;
  readonly client: string;
  readonly method: string;
  readonly url: string;
  readonly status: number;
  readonly bytes: number;
}

export interface PlannedLog {
  /** In the order of time. */
  readonly lines: readonly PlannedLine[];
  /** By site. */
  readonly truth: ReadonlyMap<string, Truth>;
}

/** What the estimate is asked for: `--cache-size`. The rest are the defaults. */
export const PLANNED_CACHE_BYTES = 100_000_000;
/** README of the estimate: what it costs to ask whether a content has changed. */
const REVALIDATION_BYTES = 800;
const MIN_SHARED_BYTES = 65_536;
const HOUR = 3600;
const DAY = 24 * HOUR;
const START = Date.UTC(2024, 1, 28) / 1000;
/** Bytes by which scenes about the size of the cache stay clear of it. */
const MARGIN = 200_000;

/** The sites, as `--sites` is told of them; the second lies within the first. */
export const PLANNED_SITES = `# planned
berlin 10.1.0.0/16,192.168.7.0/24
hall   10.1.128.0/17   # a building of its own
oslo   2001:db8:c::/48
`;

const CLIENTS: Readonly<Record<string, (number: number) => string>> = {
  berlin: (number) => (number % 3 === 0 ? `192.168.7.${number % 250}` : `10.1.${(number >> 8) & 127}.${number & 255}`),
  hall: (number) => `10.1.${128 + ((number >> 8) & 127)}.${number & 255}`,
  oslo: (number) => `2001:db8:c:${(number & 15).toString(16)}::${number.toString(16)}`,
  other: (number) => `172.30.${(number >> 8) & 255}.${number & 255}`,
};

/** @param headBytes added to each answer by a number from 0 up to it, as formats do that count heads */
export function planLog(seed: number, scenes: number, headBytes = 0): PlannedLog {
  const lines: PlannedLine[] = [];
  const truth = new Map<string, Truth>();
  for (const [at, site] of Object.keys(CLIENTS).entries()) {
    const stage = new Stage(site, words(seed + at), headBytes);
    for (let scene = 0; scene < scenes; scene += 1) SCENES[scene % SCENES.length]?.(stage);
    lines.push(...stage.lines);
    truth.set(site, stage.truth);
  }
  return { lines: lines.toSorted((a, b) => a.second - b.second), truth };
}

/** One site. */
class Stage {
  readonly lines: PlannedLine[] = [];
  readonly truth: Truth = { requests: 0, wanBytes: 0, oneSided: 0, peers: 0, hosted: 0, withTwice: 0 };
  readonly #site: string;
  readonly #next: () => number;
  readonly #headBytes: number;
  #second = START;
  #names = 0;
  #clients = 0;

  constructor(site: string, next: () => number, headBytes: number) {
    this.#site = site;
    this.#next = next;
    this.#headBytes = headBytes;
  }

  wait(seconds: number): void {
    this.#second += seconds;
  }

  /** A URL nobody has asked for yet; other sites have it too. */
  url(): string {
    this.#names += 1;
    return `/scene/${this.#names}.bin?v="quoted" 100%`;
  }

  /** A client that has asked for nothing yet. */
  client(): string {
    this.#clients += 1;
    return (CLIENTS[this.#site] as (number: number) => string)(this.#clients);
  }

  size(least: number, most: number): number {
    return least + pick(this.#next, most - least);
  }

  /** A request, a second after the one before. @returns the bytes that are logged */
  ask(client: string, url: string, bytes: number, { method = 'GET', status = 200 } = {}): number {
    this.#second += 1;
    const logged = bytes + (this.#headBytes === 0 ? 0 : pick(this.#next, this.#headBytes));
    this.lines.push({ second: this.#second, client, method, url, status, bytes: logged });
    this.truth.requests += 1;
    this.truth.wanBytes += logged;
    if (method === 'GET' && (status === 200 || status === 206) && logged >= MIN_SHARED_BYTES) {
      // Content information: 68 bytes for each 62 KiB or so.
      const cost = 36 + 68 * (logged / 63_900 + 0.6);
      this.truth.peers -= cost;
      this.truth.hosted -= cost;
    }
    return logged;
  }

  save(bytes: number, ...ways: readonly ('oneSided' | 'peers' | 'hosted' | 'withTwice')[]): void {
    for (const way of ways) this.truth[way] += bytes;
  }
}

const SCENES: readonly ((stage: Stage) => void)[] = [
  function neighbour(stage) {
    const [url, size] = [stage.url(), stage.size(MIN_SHARED_BYTES, 3_000_000)];
    stage.ask(stage.client(), url, size);
    stage.wait(7 * HOUR);
    for (let times = 0; times < 3; times += 1)
      stage.save(stage.ask(stage.client(), url, size), 'oneSided', 'peers', 'hosted');
  },
  function tooSmallForHashes(stage) {
    const [url, size] = [stage.url(), stage.size(1, 60_000)];
    stage.ask(stage.client(), url, size);
    stage.save(stage.ask(stage.client(), url, size), 'oneSided');
  },
  function everybodyOffAndStale(stage) {
    const [url, size] = [stage.url(), stage.size(MIN_SHARED_BYTES, 3_000_000)];
    stage.ask(stage.client(), url, size);
    stage.wait(2 * DAY);
    const logged = stage.ask(stage.client(), url, size);
    stage.save(logged, 'hosted');
    stage.save(logged - REVALIDATION_BYTES, 'oneSided');
    // It has just been validated, and its second client is on.
    stage.save(stage.ask(stage.client(), url, size), 'oneSided', 'peers', 'hosted');
  },
  function itsOwnCopy(stage) {
    const [client, url, size] = [stage.client(), stage.url(), stage.size(MIN_SHARED_BYTES, 3_000_000)];
    stage.ask(client, url, size);
    stage.wait(2 * DAY);
    const logged = stage.ask(client, url, size);
    stage.save(logged, 'peers', 'hosted');
    stage.save(logged - REVALIDATION_BYTES, 'oneSided');
  },
  function onAgain(stage) {
    const [holder, url, size] = [stage.client(), stage.url(), stage.size(MIN_SHARED_BYTES, 3_000_000)];
    stage.ask(holder, url, size);
    stage.wait(20 * HOUR);
    stage.ask(holder, stage.url(), 50, { status: 404 });
    stage.save(stage.ask(stage.client(), url, size), 'oneSided', 'peers', 'hosted');
  },
  function anotherVersion(stage) {
    const [url, size] = [stage.url(), stage.size(MIN_SHARED_BYTES, 3_000_000)];
    const client = stage.client();
    stage.ask(client, url, size);
    stage.ask(stage.client(), url, size + 5_000);
    stage.save(stage.ask(client, url, size + 5_000), 'oneSided', 'peers', 'hosted');
  },
  function nothingToKeep(stage) {
    const url = stage.url();
    for (const status of [404, 301, 500, 304, 416]) stage.ask(stage.client(), url, status, { status });
    for (const method of ['POST', 'HEAD', 'PUT']) stage.ask(stage.client(), url, 70_000, { method });
    stage.ask(stage.client(), url, 70_000);
    stage.ask(stage.client(), url, 70_000, { method: 'POST' });
  },
  function parts(stage) {
    const [url, size] = [stage.url(), stage.size(2_000_000, 3_000_000)];
    const part = stage.size(MIN_SHARED_BYTES, 500_000);
    stage.ask(stage.client(), url, part, { status: 206 });
    stage.save(stage.ask(stage.client(), url, part, { status: 206 }), 'oneSided', 'peers', 'hosted');
    stage.ask(stage.client(), url, size);
    stage.save(stage.ask(stage.client(), url, part + 10_000, { status: 206 }), 'oneSided', 'peers', 'hosted');
  },
  function justKept(stage) {
    const [url, size] = [stage.url(), 2_000_000];
    stage.ask(stage.client(), url, size);
    flood(stage, PLANNED_CACHE_BYTES - size - MARGIN);
    stage.save(stage.ask(stage.client(), url, size), 'oneSided', 'peers', 'hosted');
  },
  function justEvicted(stage) {
    const [url, size] = [stage.url(), 2_000_000];
    stage.ask(stage.client(), url, size);
    flood(stage, PLANNED_CACHE_BYTES - size + MARGIN);
    const logged = stage.ask(stage.client(), url, size);
    stage.save(logged, 'peers', 'withTwice');
  },
  function tooLarge(stage) {
    const url = stage.url();
    stage.ask(stage.client(), url, 1.5 * PLANNED_CACHE_BYTES);
    stage.save(stage.ask(stage.client(), url, 1.5 * PLANNED_CACHE_BYTES), 'peers', 'withTwice');
  },
];

/** New contents of about as many bytes; each once. */
function flood(stage: Stage, bytes: number): void {
  const client = stage.client();
  const pieces = 50;
  for (let piece = 0; piece < pieces; piece += 1) stage.ask(client, stage.url(), Math.floor(bytes / pieces));
}

// --- The formats -----------------------------------------------------------------------------------------------------------------------

const BROWSER = 'Mozilla/5.0 (X11; "quoted")';

export function combinedLine({ second, client, method, url, status, bytes }: PlannedLine): string {
  const [, day, month, year, clock] = new Date((second + 2 * HOUR) * 1000).toUTCString().split(' ');
  const quote = (text: string): string => text.replaceAll('"', String.raw`\x22`);
  return `${client} - a [b] user [${day}/${month}/${year}:${clock} +0200] "${method} ${quote(url)} HTTP/1.1" ${status} ${bytes === 0 ? '-' : bytes} "-" "${quote(BROWSER)}"`;
}

export function squidLine({ second, client, method, url, status, bytes }: PlannedLine): string {
  const target = `http://files.example.com${encodeURI(url)}`;
  return `${second}.${String(second % 1000).padStart(3, '0')}   ${second % 977} ${client} TCP_MISS/${status} ${bytes} ${method} ${target} - HIER_DIRECT/192.0.2.1 text/html`;
}

/** With the lines that IIS writes whenever it starts; `order` is that of the fields from then on. */
export function iisLines(lines: readonly PlannedLine[]): string[] {
  const orders = [
    'date time s-ip cs-method cs-uri-stem cs-uri-query s-port c-ip cs(User-Agent) sc-status sc-bytes time-taken',
    'date time c-ip cs-method cs-uri-stem cs-uri-query sc-status sc-bytes cs-bytes',
  ];
  const output: string[] = [];
  for (const [at, line] of lines.entries()) {
    const fields = orders[Math.floor(at / 500) % 2] as string;
    if (at % 500 === 0)
      output.push('#Software: Microsoft Internet Information Services 10.0', '#Version: 1.0', `#Fields: ${fields}`);
    const [date = '', time = ''] = new Date(line.second * 1000).toISOString().slice(0, 19).split('T');
    const [stem = '', query] = line.url.replaceAll(' ', '+').split('?');
    const values: Readonly<Record<string, string>> = {
      date,
      time,
      's-ip': '192.0.2.1',
      'cs-method': line.method,
      'cs-uri-stem': stem,
      'cs-uri-query': query ?? '-',
      's-port': '80',
      'c-ip': line.client,
      'cs(User-Agent)': BROWSER.replaceAll(' ', '+'),
      'sc-status': String(line.status),
      'sc-bytes': String(line.bytes),
      'cs-bytes': '312',
      'time-taken': '15',
    };
    output.push(
      fields
        .split(' ')
        .map((field) => values[field])
        .join(' '),
    );
  }
  return output;
}
