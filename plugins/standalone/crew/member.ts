/** A worker's side of a crew: what its leader does for it. */
import { ServerSecret } from '../../../lib/protocol/pccrc/index.ts';
import type { OfferMessage, OfferResponse } from '../../../lib/protocol/pchc/index.ts';
import type { Holder, PeerFinder } from '../../../lib/services/index.ts';
import type { Claims } from '../../../lib/stores/index.ts';
import type { MetricsReport } from '../../metrics/index.ts';
import type { Service, Update } from '../roles/service.ts';
import { Channel, type Port } from './channel.ts';
import { RemoteClaims } from './claims.ts';
import { RemoteFinder } from './finder.ts';

/** What a worker is told when it starts. */
export interface Welcome {
  /** Server secrets, the current one first: made where there was none, so workers cannot make their own. */
  readonly secrets: readonly Uint8Array[];
  /** What the leader was started with: those of all its workers, whatever a file says by now. */
  readonly values: unknown;
}

export interface Member {
  /** What its leader was started with. */
  readonly values: unknown;
  readonly secrets: readonly [ServerSecret, ...ServerSecret[]];
  readonly claims: Claims;
  /** Undefined is for those who do not look for peers. */
  readonly finder: PeerFinder;
  /** Resolves when the leader wants this worker to end. */
  readonly stopRequested: Promise<void>;
  /** Calls back each time the leader has taken something over. */
  readonly onReload: (takeOver: (update: Update) => void) => void;
  /** A client offers something to the hosted cache. */
  readonly offer: (offer: OfferMessage, from: string) => Promise<OfferResponse>;
  /** A client was given something that nobody has verified. */
  readonly noteFetch: (segmentId: string, address: string) => void;
  /** The role runs. */
  readonly ready: (service: Service) => void;
  /** The role cannot run, and nothing but a person can help. */
  readonly fail: (message: string) => Promise<void>;
}

/** Milliseconds between two reports that nobody has asked for: what may be lost of the counts of a worker that is killed. Policy. */
const REPORT_MS = 1_000;

export async function joinCrew(): Promise<Member> {
  // What Node itself sends to a leader that is gone; whoever lost its leader ends anyway.
  process.on('error', () => {});
  let stop = (): void => {};
  const stopRequested = new Promise<void>((resolve) => {
    stop = resolve;
  });
  let report: () => Promise<MetricsReport> = async () => [];
  let live: Service['live'] | undefined;
  let takeOver = (_update: Update): void => {};
  const channel = new Channel(process as unknown as Port, {
    stop: () => stop(),
    report: () => report(),
    live: () => live?.(),
    reload: (update: Update) => takeOver(update),
    heard: (segmentId: string, holders: readonly Holder[]) => finder.heard(segmentId, holders),
  });
  const finder = new RemoteFinder(channel);
  const { secrets, values } = (await channel.call('welcome')) as Welcome;
  return {
    values,
    secrets: secrets.map((secret) => new ServerSecret(secret)) as unknown as Member['secrets'],
    claims: new RemoteClaims(channel),
    finder,
    stopRequested,
    onReload: (callback) => {
      takeOver = callback;
    },
    offer: async (offer, from) => (await channel.call('offer', offer, from)) as OfferResponse,
    noteFetch: (segmentId, address) => channel.tell('noteFetch', segmentId, address),
    ready: (service) => {
      const { listeners, metrics } = service;
      report = metrics.report;
      live = service.live;
      channel.tell('ready', listeners);
      setInterval(() => void report().then((newest) => channel.tell('counted', newest)), REPORT_MS).unref();
    },
    async fail(message) {
      await channel.call('failed', message).catch(() => {});
    },
  };
}
