import { type Clock, systemClock } from '../../clock.ts';
import { isPeerDistError } from '../../errors.ts';
import { ignoreObservations, type Observer } from '../../observer.ts';
import { decodeDiscovery, DISCOVERY_PORT, type DiscoveryVersion } from '../../protocol/pccrd/index.ts';
import type { BlockStore } from '../../stores/index.ts';
import type { Holder, PeerFinder } from '../peers/index.ts';
import { type LanInterface, lanInterfaces } from './interfaces.ts';
import { type Arrival, MulticastSockets } from './multicast.ts';
import { Prober } from './prober.ts';
import { RateLimiter } from './rate-limiter.ts';
import { Responder } from './responder.ts';

export interface DiscoveryOptions {
  /** What neighbours are told of. */
  readonly store: Pick<BlockStore, 'segment'>;
  /** Segment ID that no segment has (lower-case hexadecimal): whoever asks for it hears that we are here, and {@link Discovery.seek} finds others. */
  readonly beacon?: string | undefined;
  /** Where blocks can be had on an interface of that address; undefined where they cannot. @default nowhere */
  readonly portOn?: ((address: string) => number | undefined) | undefined;
  /** Names of the interfaces to use. @default all but loopback */
  readonly interfaces?: readonly string[] | undefined;
  /** UDP port of the group. @default 3702 */
  readonly port?: number | undefined;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
  readonly random?: (() => number) | undefined;
}

/** Bytes of a datagram that is looked at: the largest honest one has 13 KiB. Policy, not protocol. */
const MAX_DATAGRAM_BYTES = 20 * 1024;
/** Datagrams a second that are looked at, by source and in all; each begun KiB counts, since parsing takes by the byte. Policy, not protocol. */
const MAX_PER_SOURCE = 400;
const MAX_IN_ALL = 2_000;
/** How often the interfaces are looked at again, milliseconds: addresses come and go. Policy, not protocol. */
const REFRESH_MS = 30_000;

/** Finds peers by multicast on the LAN, and is found by them. Everything hostile is dropped and counted; nothing here ever fails a reader. */
export class Discovery implements PeerFinder {
  readonly #prober: Prober;
  readonly #responder: Responder;
  readonly #names: readonly string[] | undefined;
  readonly #port: number;
  readonly #observer: Observer;
  readonly #clock: Clock;
  readonly #perSource: RateLimiter;
  readonly #inAll: RateLimiter;
  #sockets: MulticastSockets | undefined;
  #interfaces: readonly LanInterface[] = [];
  #cancelRefresh: (() => void) | undefined;
  #isClosed = false;

  /**
   * Opens what can be opened. Without a usable interface nothing is found until there is one: the machine is looked at again from time to time.
   *
   * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a name that is no interface
   */
  static async open(options: DiscoveryOptions): Promise<Discovery> {
    lanInterfaces(options.interfaces);
    const discovery = new Discovery(options);
    await discovery.#refresh();
    return discovery;
  }

  private constructor({
    store,
    beacon,
    portOn = () => undefined,
    interfaces,
    port = DISCOVERY_PORT,
    observer = ignoreObservations,
    clock = systemClock,
    random = Math.random,
  }: DiscoveryOptions) {
    this.#names = interfaces;
    this.#port = port;
    this.#observer = observer;
    this.#clock = clock;
    this.#perSource = new RateLimiter(MAX_PER_SOURCE, clock);
    this.#inAll = new RateLimiter(MAX_IN_ALL, clock);
    this.#prober = new Prober({ send: (datagram) => this.#sockets?.send(datagram), beacon, observer, clock });
    this.#responder = new Responder({
      store,
      beacon,
      portOn,
      reply: (datagram, arrival) => this.#sockets?.reply(datagram, arrival),
      quorum: (segmentId, blockCount) => this.#prober.quorum(segmentId, blockCount),
      observer,
      clock,
      random,
    });
  }

  /** Names of the interfaces in use. */
  get interfaces(): readonly string[] {
    return this.#sockets?.names ?? [];
  }

  holders(segmentId: string): readonly Holder[] {
    return this.#prober.holders(segmentId);
  }

  seek(segmentIds: readonly string[], version: DiscoveryVersion): void {
    this.#prober.seek(segmentIds, version);
  }

  awaited(segmentId: string): Promise<void> | undefined {
    return this.#prober.awaited(segmentId);
  }

  close(): void {
    this.#isClosed = true;
    this.#cancelRefresh?.();
    this.#responder.close();
    this.#prober.close();
    this.#sockets?.close();
  }

  /** One datagram of a neighbour. */
  receive(arrival: Arrival): void {
    const { datagram, source } = arrival;
    const cost = Math.max(1, Math.ceil(datagram.byteLength / 1024));
    if (datagram.byteLength > MAX_DATAGRAM_BYTES) return this.#drop();
    if (!this.#perSource.allows(source.address, cost) || !this.#inAll.allows('', cost)) return this.#drop();
    let message: ReturnType<typeof decodeDiscovery>;
    try {
      message = decodeDiscovery(datagram);
    } catch (error) {
      if (!isPeerDistError(error)) throw error;
      return this.#drop();
    }
    if (message === undefined) return undefined;
    if ('probe' in message) {
      const { probe } = message;
      if (this.#prober.isOwn(probe.messageId)) return undefined;
      this.#observer({ type: 'discovery', message: 'probe_received' });
      void this.#responder.take(probe, arrival).then((isTaken) => (isTaken ? undefined : this.#drop()));
      return undefined;
    }
    if (!this.#prober.take(message.probeMatches, source)) return this.#drop();
    return this.#observer({ type: 'discovery', message: 'match_received' });
  }

  /** Never rejects. */
  async #refresh(): Promise<void> {
    const interfaces = this.#present();
    if (describe(interfaces) !== describe(this.#interfaces)) {
      this.#interfaces = interfaces;
      this.#sockets?.close();
      this.#sockets = await MulticastSockets.open({
        interfaces,
        port: this.#port,
        onDatagram: (arrival) => this.receive(arrival),
        onStray: () => this.#drop(),
      });
    } else await this.#sockets?.joinMissing();
    if (this.#isClosed) return this.#sockets?.close();
    this.#cancelRefresh = this.#clock.after(REFRESH_MS, () => void this.#refresh());
    return undefined;
  }

  #present(): readonly LanInterface[] {
    try {
      return lanInterfaces(this.#names);
    } catch {
      // One of those named is gone for now.
      return [];
    }
  }

  #drop(): void {
    this.#observer({ type: 'discovery', message: 'dropped' });
  }
}

function describe(interfaces: readonly LanInterface[]): string {
  return interfaces.map(({ name, address }) => `${name} ${address}`).join();
}
