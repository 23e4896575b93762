/** Certificates of listed hosts, made as they are needed in the name of an authority that clients trust. */
import { randomBytes } from 'node:crypto';
import { isIP } from 'node:net';
import { type Clock, systemClock } from '../../lib/clock.ts';
import { type CertificateAndKey, checkAuthority, Issuer } from '../../lib/crypto/certificates.ts';
import { isPermitted } from '../../lib/crypto/name-constraints.ts';
import { PeerDistError } from '../../lib/errors.ts';
import { plainAddress } from './access.ts';
import type { InterceptIdentity, Interceptor } from './intercept.ts';

/** Certificates kept, the one used last longest. Policy, not protocol. */
const MAX_LEAVES = 256;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** How long one is good for, how far back it is dated for clients whose clock is slow, and how long before its end another takes its place. Policy. */
const VALID_MS = 7 * DAY_MS;
const BACKDATED_MS = HOUR_MS;
const RENEWED_MS = DAY_MS;
/** Bytes of the keys of session tickets, as Node wants them. */
const TICKET_KEY_BYTES = 48;

const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;
const MAX_NAME_LENGTH = 253;

/** A host that is listed. */
export interface HostPattern {
  /** Lower case; an address in its canonical spelling, without brackets. */
  readonly host: string;
  /** `*.host`: names with exactly one more label. */
  readonly isWildcard: boolean;
}

/**
 * Reads `host`, `*.domain.tld`, or an address.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
 */
export function parseHostPattern(text: string): HostPattern {
  const lower = text.toLowerCase();
  const address = plainAddress(lower.replace(/^\[(.*)\]$/, '$1'));
  if (isIP(address) !== 0) return { host: address, isWildcard: false };
  const isWildcard = lower.startsWith('*.');
  const host = isWildcard ? lower.slice(2) : lower;
  const labels = host.split('.');
  // The last label of a name has a letter in it: what has none is an address with a mistake.
  const isName =
    host.length <= MAX_NAME_LENGTH && labels.every((label) => LABEL.test(label)) && /[a-z]/.test(labels.at(-1) ?? '');
  if (!isName || (isWildcard && labels.length < 2))
    throw new PeerDistError(
      'ERR_PEERDIST_INVALID_OPTION',
      `not a host like packages.example.com, *.example.com or 192.0.2.1, without scheme and port: ${text}`,
    );
  return { host, isWildcard };
}

export interface LeafCertificatesOptions {
  /** The authority, PEM; certificates that lead from it to a root may follow its own. */
  readonly authority: CertificateAndKey;
  /** As {@link parseHostPattern} reads them; at least one. */
  readonly hosts: readonly string[];
}

interface Leaf {
  readonly identity: Promise<InterceptIdentity>;
  /** Milliseconds since 1970, from when on another one is made. */
  readonly renewAt: number;
}

/** An {@link Interceptor} with an authority of its own. */
export class LeafCertificates implements Interceptor {
  readonly #authority: CertificateAndKey;
  readonly #authorityEnd: number;
  readonly #clock: Clock;
  readonly #patterns: readonly HostPattern[];
  readonly #hosts: ReadonlySet<string>;
  readonly #domains: ReadonlySet<string>;
  /** In the order of their last use. */
  readonly #leaves = new Map<string, Leaf>();
  #issuer: Promise<Issuer> | undefined;

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
  constructor({ authority, hosts }: LeafCertificatesOptions, clock: Clock = systemClock) {
    this.#authority = authority;
    this.#authorityEnd = Date.parse(checkAuthority(authority).validTo);
    this.#clock = clock;
    this.#patterns = hosts.map(parseHostPattern);
    const listed = (isWildcard: boolean): Set<string> =>
      new Set(this.#patterns.filter((each) => each.isWildcard === isWildcard).map(({ host }) => host));
    this.#hosts = listed(false);
    this.#domains = listed(true);
  }

  /**
   * Loads what the first client would have to wait for.
   *
   * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a host that the authority cannot vouch for: clients would refuse what they are shown
   */
  async prepare(): Promise<void> {
    const { permitted } = await this.#opened();
    for (const { host, isWildcard } of this.#patterns)
      if (permitted !== undefined && !isPermitted(permitted, isWildcard ? `any.${host}` : host))
        throw new PeerDistError(
          'ERR_PEERDIST_INVALID_OPTION',
          `the authority is not permitted to vouch for ${isWildcard ? '*.' : ''}${host}, only for ${[...(permitted.names ?? ['any name']), ...(permitted.addresses ?? ['any address'])].join(', ')}`,
        );
  }

  isListed(hostname: string): boolean {
    if (this.#hosts.has(hostname)) return true;
    const dot = hostname.indexOf('.');
    return dot > 0 && this.#domains.has(hostname.slice(dot + 1)) && LABEL.test(hostname.slice(0, dot));
  }

  identityFor(hostname: string): Promise<InterceptIdentity> {
    const kept = this.#leaves.get(hostname);
    const now = this.#clock.now();
    const leaf = kept !== undefined && now < kept.renewAt ? kept : this.#make(hostname, now);
    this.#leaves.delete(hostname);
    this.#leaves.set(hostname, leaf);
    if (this.#leaves.size > MAX_LEAVES) {
      const [oldest] = this.#leaves.keys();
      this.#leaves.delete(oldest as string);
    }
    return leaf.identity;
  }

  #make(hostname: string, now: number): Leaf {
    const end = Math.min(now + VALID_MS, this.#authorityEnd);
    // In the last days of its authority a new one would be no better.
    const renewAt = end === this.#authorityEnd ? end : end - RENEWED_MS;
    const identity = this.#issue(hostname, now, end);
    const leaf = { identity, renewAt };
    identity.catch(() => {
      if (this.#leaves.get(hostname) === leaf) this.#leaves.delete(hostname);
    });
    return leaf;
  }

  async #issue(hostname: string, now: number, end: number): Promise<InterceptIdentity> {
    if (end <= now)
      throw new PeerDistError(
        'ERR_PEERDIST_SERVICE_UNAVAILABLE',
        'the certificate authority of this proxy has expired',
      );
    const issuer = await this.#opened();
    const validity = { notBefore: new Date(now - BACKDATED_MS), notAfter: new Date(end) };
    const cert = await issuer.issue(hostname, validity);
    return { cert, key: issuer.key, ticketKeys: randomBytes(TICKET_KEY_BYTES) };
  }

  #opened(): Promise<Issuer> {
    return (this.#issuer ??= Issuer.open(this.#authority));
  }
}
