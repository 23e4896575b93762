/** The options of commands that look for peers, and of those that ask them for blocks. */
import type { Command } from 'commander';
import type { PeerAddress } from '../../../lib/protocol/pccrd/index.ts';
import type { NeighbourhoodOptions } from '../roles/neighbourhood.ts';
import { checked, flag, list, numberFrom, setting, TEXT } from './settings.ts';
import { parsePeer } from './units.ts';

export interface DiscoveryValues {
  readonly discoveryInterface?: string[];
  readonly discoveryPort: number;
}

export interface PeerValues extends DiscoveryValues {
  readonly peer?: string[];
  readonly hostedCache?: string[];
  /** Undefined when nothing was said. */
  readonly discovery?: boolean;
}

export function addPeerOptions(command: Command): Command {
  const peer = checked('a peer like 10.0.0.7 or 10.0.0.7:8008', parsePeer);
  command
    .addOption(list('--peer <host:port>', 'a peer to ask about everything; port 80 unless given (repeatable)', peer))
    .addOption(
      list(
        '--hosted-cache <host:port>',
        'a hosted cache to ask first; port 80 unless given (repeatable: in that order)',
        peer,
      ),
    )
    .addOption(flag('--discovery', 'look for peers on the LAN although there is a hosted cache'))
    .addOption(flag('--no-discovery', 'neither look for peers on the LAN nor be found by them'));
  return addDiscoveryOptions(command);
}

export function addDiscoveryOptions(command: Command): Command {
  return command
    .addOption(
      list('--discovery-interface <name>', 'network interface to look on (repeatable; default all but loopback)', TEXT),
    )
    .addOption(
      setting(
        '--discovery-port <number>',
        'UDP port of discovery; Windows and iPXE know only this one',
        numberFrom('--discovery-port', 1, 65_535),
        '3702',
      ),
    );
}

/** A neighbourhood to ask; it gives nothing. */
export function neighbourhoodOptions(values: PeerValues, warn: (line: string) => void): NeighbourhoodOptions {
  const { discovery = values.hostedCache === undefined } = values;
  return {
    listen: undefined,
    peers: values.peer?.map((text) => peerAddress(text)),
    hostedCaches: values.hostedCache?.map((text) => peerAddress(text)),
    discovery: discovery ? { interfaces: values.discoveryInterface, port: values.discoveryPort } : undefined,
    warn,
  };
}

/** @param defaultPort as for {@link parsePeer} */
export function peerAddress(text: string, defaultPort?: number): PeerAddress {
  const { host, port } = parsePeer(text, defaultPort);
  return { address: host, port };
}
