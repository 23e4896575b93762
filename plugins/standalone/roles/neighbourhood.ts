/** A branch among its neighbours: whom it asks for blocks, and how it gives them its own. */
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { CipherName } from '../../../lib/crypto/index.ts';
import { PeerDistError } from '../../../lib/errors.ts';
import type { Observer } from '../../../lib/observer.ts';
import type { PeerDistComponents } from '../../../lib/peerdist/index.ts';
import type { ServerSecret } from '../../../lib/protocol/pccrc/index.ts';
import { formatPeerAddress, type PeerAddress } from '../../../lib/protocol/pccrd/index.ts';
import {
  createLanHttpServer,
  Discovery,
  type DiscoveryOptions,
  type BlockSource,
  type PeerFinder,
  isNeighbour,
  type LanRequestHandler,
  Offers,
  openHoldings,
  PeerSource,
  type PeerStanding,
  RetrievalServer,
  SegmentLists,
  siteBeacon,
  SiblingDirectory,
} from '../../../lib/services/index.ts';
import type { BlockStore } from '../../../lib/stores/index.ts';
import type { Neighbour } from '../../dashboard/index.ts';
import { networkSet, plainAddress } from '../../http-proxy/index.ts';
import type { ListenAddress } from '../options/units.ts';

export interface NeighbourhoodOptions {
  /** Where neighbours get blocks; undefined gives them none. */
  readonly listen: ListenAddress | undefined;
  /** Networks that may connect besides this machine's own subnets. */
  readonly allow?: readonly string[] | undefined;
  /** Peers that are asked about everything. */
  readonly peers?: readonly PeerAddress[] | undefined;
  /** Other branch proxies of this site, by their peer listeners: peers, and asked what they know. Needs {@link NeighbourhoodOptions.listen}. */
  readonly siblings?: readonly PeerAddress[] | undefined;
  /** Hosted caches, in the order they are tried: asked before all peers, and offered what has come from the origin. */
  readonly hostedCaches?: readonly PeerAddress[] | undefined;
  /** Undefined neither asks the LAN nor answers it. */
  readonly discovery?: Pick<DiscoveryOptions, 'interfaces' | 'port'> | undefined;
  /** @default 'aes-128' */
  readonly cipher?: CipherName | undefined;
  /** @default 64 */
  readonly maxUploads?: number | undefined;
  /** Told in a line what does not work, where the branch can do without. */
  readonly warn?: ((line: string) => void) | undefined;
}

export interface Neighbourhood {
  /** In the order they are asked. */
  readonly sources: readonly BlockSource[];
  readonly onOriginBlock: PeerDistComponents['onOriginBlock'];
  /** What the proxies of this site tell each other; undefined for who has no secret in common with anybody, or gives nothing. */
  readonly directory: SiblingDirectory | undefined;
  /** Not listening yet; undefined when neighbours get nothing. */
  readonly server: Server | undefined;
  /** Whom blocks are asked of, and how it stands with them. */
  neighbours(): Neighbour[];
  /** From now on nobody on the LAN hears of what is here, and nobody is looked for. */
  leave(): void;
  close(): void;
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for an interface that is none or cannot be used, or a network that is none */
export async function joinNeighbourhood(
  {
    listen,
    allow = [],
    peers = [],
    siblings = [],
    hostedCaches = [],
    discovery: finding,
    cipher,
    maxUploads,
    warn = () => {},
  }: NeighbourhoodOptions,
  {
    store,
    finder,
    secret,
    isShared = false,
    observer,
  }: {
    readonly store: BlockStore;
    /** The secret of the site. */
    readonly secret?: ServerSecret | undefined;
    /** True where siblings need not be looked for, since all that is known is in one store. */
    readonly isShared?: boolean | undefined;
    /** Whoever is on the LAN for this process; without one it is there itself. */
    readonly finder?: PeerFinder | undefined;
    readonly observer: Observer;
  },
): Promise<Neighbourhood> {
  const allowed = networkSet(allow);
  const hosted =
    hostedCaches.length === 0 ? undefined : joinHostedCaches(hostedCaches, () => server && openPort(server), observer);
  const retrieval = new RetrievalServer({ holdings: openHoldings(store, cipher), maxUploads, observer });
  const isAllowed = (address: string): boolean =>
    allowed.has(address) || isNeighbour(address) || hosted?.offers.isCache(address) === true;
  const asked: LanRequestHandler[] = [retrieval];
  const server = listen && createLanHttpServer(asked, { isAllowed });
  const portOn = (address: string): number | undefined => {
    const own = server?.listening === true ? (server.address() as AddressInfo) : undefined;
    return own && portAt({ host: own.address, port: own.port }, address);
  };
  const discovery =
    finding === undefined || finder !== undefined
      ? undefined
      : await discover({ ...finding, store, portOn, beacon: secret && siteBeacon(secret), observer }, warn);
  const lan = finding && (finder ?? discovery);
  const source = new PeerSource({ peers: [...peers, ...siblings], finder: lan, observer });
  const directory =
    secret && server && new SiblingDirectory({ secret, siblings, finder: isShared ? undefined : lan, observer });
  if (directory !== undefined) asked.push(directory);
  return {
    sources: hosted === undefined ? [source] : [hosted.source, source],
    // Who gives nothing away has nothing to offer.
    onOriginBlock: hosted && server && ((content, block) => hosted.offers.kept(content, block)),
    directory,
    server,
    neighbours: () => [...(hosted?.neighbours() ?? []), ...source.neighbours.map((peer) => shown(peer, 'peer'))],
    leave: () => discovery?.close(),
    close() {
      hosted?.close();
      directory?.close();
      discovery?.close();
      source.close();
    },
  };
}

interface HostedCaches {
  readonly source: PeerSource;
  readonly offers: Offers;
  neighbours(): Neighbour[];
  close(): void;
}

function joinHostedCaches(
  caches: readonly PeerAddress[],
  port: () => number | undefined,
  observer: Observer,
): HostedCaches {
  const lists = new SegmentLists({ caches, observer });
  const source = new PeerSource({ name: 'hosted_cache', finder: lists, observer });
  const offers = new Offers({ caches, port, observer });
  return {
    source,
    offers,
    neighbours() {
      const asked = source.neighbours;
      const names = new Set(asked.map(({ address }) => formatPeerAddress(address)));
      const others = caches.filter((cache) => !names.has(formatPeerAddress(cache)));
      const unasked = others.map((address) => ({ address, state: 'new', serviceMs: undefined }) as const);
      return [...asked, ...unasked].map((cache) => shown(cache, 'hosted_cache'));
    },
    close() {
      offers.close();
      source.close();
      lists.close();
    },
  };
}

function shown({ address, state, serviceMs }: PeerStanding, kind: Neighbour['kind']): Neighbour {
  return { name: formatPeerAddress(address), kind, state, blockMs: serviceMs };
}

/** Goes on the LAN: looks for peers, and answers those that look for what is in the store. Only who asked for certain interfaces has to hear of it as an error. */
export async function discover(options: DiscoveryOptions, warn: (line: string) => void): Promise<Discovery> {
  const discovery = await Discovery.open(options);
  if (discovery.interfaces.length > 0) return discovery;
  if (options.interfaces !== undefined) {
    discovery.close();
    throw new PeerDistError(
      'ERR_PEERDIST_INVALID_OPTION',
      `network interface ${options.interfaces.join(', ')} cannot be used for discovery`,
    );
  }
  warn('no network interface can be used for peer discovery yet; looking again every 30 seconds');
  return discovery;
}

function openPort(server: Server): number | undefined {
  return server.listening ? (server.address() as AddressInfo).port : undefined;
}

/** The port of a listener, if it can be reached at that address of this machine. */
export function portAt({ host, port }: ListenAddress, address: string): number | undefined {
  const isEverywhere = host === '::' || (host === '0.0.0.0' && !address.includes(':'));
  return isEverywhere || plainAddress(host) === address ? port : undefined;
}
