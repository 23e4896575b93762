import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { DISCOVERY_GROUP_IPV4, DISCOVERY_GROUP_IPV6, type PeerAddress } from '../../protocol/pccrd/index.ts';
import type { LanInterface } from './interfaces.ts';

/** A datagram from a neighbour. */
export interface Arrival {
  readonly datagram: Uint8Array;
  /** IPv6 link-local addresses with their zone. */
  readonly source: PeerAddress;
  /** The interface in whose subnet the source is; which one the datagram came in by, Node does not tell. */
  readonly via: LanInterface;
}

export interface MulticastOptions {
  readonly interfaces: readonly LanInterface[];
  readonly port: number;
  readonly onDatagram: (arrival: Arrival) => void;
  /** Told of datagrams from outside all subnets; they are dropped unread. */
  readonly onStray: () => void;
}

/**
 * The sockets of discovery: for each interface one that asks and answers, bound to its address so that this is the source neighbours see; for
 * each IP version one that hears what is said to the group.
 */
export class MulticastSockets {
  readonly #options: MulticastOptions;
  readonly #port: number;
  readonly #own = new Map<LanInterface, Socket>();
  readonly #group = new Map<4 | 6, Socket>();

  /** Opens as many as can be: machines have interfaces that cannot multicast, and IPv6 that is switched off. Never rejects. */
  static async open(options: MulticastOptions): Promise<MulticastSockets> {
    const sockets = new MulticastSockets(options);
    await sockets.joinMissing();
    return sockets;
  }

  private constructor(options: MulticastOptions) {
    this.#options = options;
    this.#port = options.port;
  }

  /** Tries those once more that could not be used. Never rejects. */
  async joinMissing(): Promise<void> {
    for (const lan of this.#options.interfaces)
      if (!this.#own.has(lan)) await this.#join(lan, this.#options).catch(() => {});
  }

  /** Names of the interfaces in use. */
  get names(): readonly string[] {
    return [...new Set([...this.#own.keys()].map(({ name }) => name))];
  }

  /** Says something to everybody on every interface. Nobody learns whether it arrived. */
  send(datagram: Uint8Array): void {
    for (const [{ family }, socket] of this.#own) {
      socket.send(datagram, this.#port, family === 4 ? DISCOVERY_GROUP_IPV4 : DISCOVERY_GROUP_IPV6, () => {});
    }
  }

  /** Answers whoever sent something, from the address it can reach. */
  reply(datagram: Uint8Array, { source, via }: Arrival): void {
    this.#own.get(via)?.send(datagram, source.port, source.address, () => {});
  }

  close(): void {
    for (const socket of [...this.#own.values(), ...this.#group.values()]) socket.close();
    this.#own.clear();
    this.#group.clear();
  }

  async #join(lan: LanInterface, options: MulticastOptions): Promise<void> {
    const { family, name, address } = lan;
    const own = await this.#open(family, options, 0, family === 4 ? address : `${address}%${name}`);
    try {
      const which = family === 4 ? address : `::%${name}`;
      own.setMulticastInterface(which);
      // The LAN is as far as it goes.
      own.setMulticastTTL(1);
      own.setMulticastLoopback(true);
      const group = this.#group.get(family) ?? (await this.#open(family, options, this.#port));
      this.#group.set(family, group);
      group.addMembership(family === 4 ? DISCOVERY_GROUP_IPV4 : DISCOVERY_GROUP_IPV6, which);
      this.#own.set(lan, own);
    } catch (error) {
      own.close();
      throw error;
    }
  }

  async #open(
    family: 4 | 6,
    { interfaces, onDatagram, onStray }: MulticastOptions,
    port: number,
    address?: string,
  ): Promise<Socket> {
    const socket = createSocket({
      type: family === 4 ? 'udp4' : 'udp6',
      reuseAddr: port !== 0,
      ipv6Only: family === 6,
    });
    try {
      socket.bind(port, address);
      await once(socket, 'listening');
    } catch (error) {
      socket.close();
      throw error;
    }
    // From now on an error is one datagram that could not be sent.
    socket.on('error', () => {});
    socket.on('message', (datagram: Uint8Array, source: RemoteInfo) => {
      const via = interfaces.find((lan) => lan.contains(source.address));
      // Port 0 is legal to send from and impossible to answer.
      if (via === undefined || source.port === 0) onStray();
      else onDatagram({ datagram, source: { address: source.address, port: source.port }, via });
    });
    // Peers alone are no reason to go on running.
    socket.unref();
    return socket;
  }
}
