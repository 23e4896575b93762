/** `peerdist stats`: what running services have saved, by site and day. */
import { get, type IncomingMessage } from 'node:http';
import Table from 'cli-table3';
import type { Command } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import type { SavedDay, Savings } from '../../dashboard/index.ts';
import { printable } from '../config/discretion.ts';
import { ADDRESS, setting, TEXT } from '../options/settings.ts';
import type { Terminal } from '../terminal.ts';
import { readText } from '../options/tls-options.ts';
import { formatBytes, formatListen, type ListenAddress } from '../options/units.ts';

/** Where services have their admin listeners unless they are told otherwise. */
const USUAL = ['127.0.0.1:9180', '127.0.0.1:9181', '127.0.0.1:9182', '127.0.0.1:9184'];
/** Bytes of an answer: a year of days is a tenth of that. */
const MAX_ANSWER_BYTES = 1024 * 1024;
const TIMEOUT_MS = 10_000;
const WEEK = 7;

interface StatsValues {
  readonly adminToken?: string;
  readonly csv?: true;
  readonly json?: true;
}

export function addStatsCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  program
    .command('stats')
    .description('what running services have saved, by site and day')
    .argument('[admin...]', `admin listeners, host:port (default those of this machine: ${USUAL.join(', ')})`)
    .option('--csv', 'print a line for each site and day')
    .option('--json', 'print JSON')
    .addOption(setting('--admin-token <file>', 'file with the token of the admin listeners', TEXT))
    .action(async (admins: string[], values: StatsValues) => {
      const { adminToken } = values;
      const token = adminToken === undefined ? undefined : readText('--admin-token', adminToken).trim();
      const found: Savings[] = [];
      for (const admin of admins.length > 0 ? admins : USUAL) {
        const address = ADDRESS.parse(admin) as ListenAddress;
        try {
          found.push(await savingsOf(address, token));
        } catch (error) {
          if (admins.length === 0) continue;
          terminal.warn(`peerdist: ${formatListen(address)}: ${(error as Error).message}`);
          exit(1);
        }
      }
      if (found.length === 0 && admins.length === 0)
        throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `no service answers at ${USUAL.join(', ')}: say where`);
      if (values.json === true) terminal.print(JSON.stringify(found, undefined, 2));
      else terminal.print(values.csv === true ? csv(found) : table(found));
    });
}

async function savingsOf({ host, port }: ListenAddress, token: string | undefined): Promise<Savings> {
  // Not the name that was typed: a listener without a token answers to none but its own, which a page in a browser could not say.
  const headers = { host: 'localhost', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) };
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const asked = get({ host, port, path: '/savings', headers, timeout: TIMEOUT_MS }, resolve);
    asked.once('timeout', () => asked.destroy(new Error('no answer in time')));
    asked.once('error', reject);
  });
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.byteLength;
    if (bytes > MAX_ANSWER_BYTES) throw new Error('this is no admin listener of peerdist');
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString();
  if (response.statusCode !== 200)
    throw new Error(
      response.headers['content-type'] === 'text/plain'
        ? printable(text.split('\n')[0] || `it answered ${response.statusCode}`)
        : 'this is no admin listener of peerdist',
    );
  const found = parsed(text);
  if (isSavings(found)) return { ...found, ...(found.site === undefined ? {} : { site: printable(found.site) }) };
  throw new Error('this is no admin listener of peerdist');
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Anybody may listen where a service was expected. */
function isSavings(value: unknown): value is Savings {
  const { site = '', role, days } = (value ?? {}) as Partial<Record<keyof Savings, unknown>>;
  return (
    typeof site === 'string' &&
    typeof role === 'string' &&
    /^\w+$/.test(role) &&
    Array.isArray(days) &&
    days.every(isDay)
  );
}

function isDay(value: unknown): value is SavedDay {
  const { day, ...bytes } = (value ?? {}) as Partial<Record<keyof SavedDay, unknown>>;
  const counts = [bytes.deliveredBytes, bytes.wanBytes, bytes.savedBytes];
  return typeof day === 'string' && /^\d{4}-\d\d-\d\d$/.test(day) && counts.every(Number.isFinite);
}

function table(found: readonly Savings[]): string {
  const output = new Table({
    head: ['site', 'role', 'saved today', `last ${WEEK} days`, 'all days kept', 'of what clients got'],
    colAligns: ['left', 'left', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  });
  const today = new Date().toISOString().slice(0, 10);
  for (const { site = '', role, days } of found) {
    const sum = (list: Savings['days'], field: 'savedBytes' | 'deliveredBytes'): number =>
      list.reduce((total, day) => total + day[field], 0);
    const [saved, delivered] = [sum(days, 'savedBytes'), sum(days, 'deliveredBytes')];
    output.push([
      site,
      role,
      formatBytes(
        sum(
          days.filter(({ day }) => day === today),
          'savedBytes',
        ),
      ),
      formatBytes(
        sum(
          days.filter(({ day }) => isWithin(day, today)),
          'savedBytes',
        ),
      ),
      formatBytes(saved),
      delivered > 0 ? `${((saved / delivered) * 100).toFixed(1)} %` : '–',
    ]);
  }
  return output.toString();
}

function isWithin(day: string, today: string): boolean {
  return Date.parse(today) - Date.parse(day) < WEEK * 86_400_000;
}

/** RFC 4180. A site is quoted, and cannot be taken for a formula. */
function csv(found: readonly Savings[]): string {
  const lines = found.flatMap(({ site = '', role, days }) =>
    days.map(({ day, deliveredBytes, wanBytes, savedBytes }) =>
      [quoted(site), role, day, deliveredBytes, wanBytes, savedBytes].join(','),
    ),
  );
  return ['site,role,day,delivered_bytes,wan_bytes,saved_bytes', ...lines].join('\n');
}

function quoted(text: string): string {
  const plain = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}
