/** Which site a client belongs to: by the longest network that it is in. */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { PeerDistError } from '../../../lib/errors.ts';
import { plainAddress } from '../../http-proxy/index.ts';

/** Policy: more branches than anybody has. */
const MAX_SITES = 100_000;
/** Of clients that are in no network. */
const OTHER = 'other';
/** Where no networks are given. */
const ALL = 'all';

export class Sites {
  /** By number. */
  readonly names: readonly string[];
  /** By length of prefix: the numbers of sites by the bits of the network. The longest first. */
  readonly #networks: readonly (readonly [bits: number, sites: ReadonlyMap<string, number>])[];

  /**
   * @param networks name of a site and a network of it, address or CIDR block; a site may have many
   * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
   */
  constructor(networks: readonly (readonly [name: string, network: string])[]) {
    const numbers = new Map<string, number>();
    const byBits = new Map<number, Map<string, number>>();
    for (const [name, network] of networks) {
      if (!/^[\p{L}\p{N}][\p{L}\p{N}._-]{0,63}$/u.test(name))
        throw invalid(`not a name of a site (letters, digits, dots and dashes): ${JSON.stringify(name)}`);
      const number = numbers.get(name) ?? numbers.size;
      numbers.set(name, number);
      if (numbers.size > MAX_SITES) throw invalid(`more than ${MAX_SITES} sites`);
      const { bits, key } = parseNetwork(network);
      const sites = byBits.get(bits) ?? new Map<string, number>();
      byBits.set(bits, sites);
      const other = sites.get(key);
      if (other !== undefined && other !== number) throw invalid(`the network ${network} is given for two sites`);
      sites.set(key, number);
    }
    this.#networks = [...byBits].toSorted(([a], [b]) => b - a);
    this.names = networks.length === 0 ? [ALL] : [...numbers.keys(), OTHER];
  }

  /** Number of the site of a client: an address, or anything else. */
  of(client: string): number {
    const address = bitsOf(client);
    for (const [bits, sites] of this.#networks) {
      const site = address === undefined ? undefined : sites.get(address.slice(0, bits));
      if (site !== undefined) return site;
    }
    return this.names.length - 1;
  }
}

/**
 * Lines `name network[,network…]`; `#` begins a comment.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
 */
export function readSites(file: string): (readonly [name: string, network: string])[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw invalid(`cannot read ${file}: ${(error as NodeJS.ErrnoException).code}`);
  }
  return text.split(/\r?\n/).flatMap((line, at) => {
    const [name = '', networks, ...rest] = line.replace(/#.*/, '').trim().split(/\s+/);
    if (name === '') return [];
    if (networks === undefined || rest.length > 0)
      throw invalid(`${file}, line ${at + 1}: not like "name network,network"`);
    return networks.split(',').map((network) => [name, network] as const);
  });
}

/** `name=network[,network…]` */
export function parseSite(text: string): (readonly [name: string, network: string])[] {
  const [name = '', networks = '', ...rest] = text.split('=');
  if (networks === '' || rest.length > 0) throw invalid(`not a site like berlin=10.1.0.0/16: ${JSON.stringify(text)}`);
  return networks.split(',').map((network) => [name, network] as const);
}

/** IPv4 is what it is in IPv6 (`::ffff:0:0/96`), so that there is one kind of network. */
const IPV4_PREFIX = '0'.repeat(80) + '1'.repeat(16);

function parseNetwork(network: string): { readonly bits: number; readonly key: string } {
  const [address = '', prefix, ...rest] = network.split('/');
  const family = isIP(address);
  const longest = family === 4 ? 32 : 128;
  const length = prefix === undefined ? longest : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN;
  const all = bitsOf(address);
  if (all === undefined || !(length <= longest) || rest.length > 0)
    throw invalid(`not a network or address: ${JSON.stringify(network)}`);
  const bits = length + (family === 4 ? IPV4_PREFIX.length : 0);
  return { bits, key: all.slice(0, bits) };
}

/** The 128 bits of an address as digits; undefined for what is none. */
function bitsOf(text: string): string | undefined {
  const address = plainAddress(text);
  const family = isIP(address);
  if (family === 0) return undefined;
  if (family === 4) return IPV4_PREFIX + binary(address.split('.').map(Number), 8);
  // An IPv4 address at the end of another prefix than that of IPv4.
  if (address.includes('.')) return undefined;
  const [head, tail] = address.split('::').map((part) => part.split(':').filter(Boolean));
  const [before, after] = [head ?? [], tail ?? []];
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => '0');
  const groups = [...before, ...zeros, ...after];
  return binary(
    groups.map((group) => Number.parseInt(group, 16)),
    16,
  );
}

function binary(numbers: readonly number[], bits: number): string {
  return numbers.map((number) => number.toString(2).padStart(bits, '0')).join('');
}

function invalid(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
