import { BlockList, isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { PeerDistError } from '../../errors.ts';
import { unmappedAddress } from '../address.ts';

/** One address of this machine on a LAN, and who else is on it. */
export interface LanInterface {
  readonly name: string;
  readonly family: 4 | 6;
  /** Of IPv6 the link-local one where there is one; without its zone. */
  readonly address: string;
  /** True for an address of the same subnet. */
  contains(address: string): boolean;
}

/**
 * The interfaces of this machine: those of the names given, else all but loopback.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a name that is none
 */
export function lanInterfaces(names?: readonly string[]): LanInterface[] {
  const all = networkInterfaces();
  for (const name of names ?? []) {
    if (all[name] === undefined)
      throw new PeerDistError(
        'ERR_PEERDIST_INVALID_OPTION',
        `this machine has no network interface ${name}; it has ${Object.keys(all).join(', ')}`,
      );
  }
  return Object.entries(all).flatMap(([name, entries = []]) => {
    const chosen = entries.filter(({ internal }) => names?.includes(name) ?? !internal);
    const v4 = chosen.filter(({ family }) => family === 'IPv4');
    const v6 = chosen.filter(({ family }) => family === 'IPv6');
    const linkLocal = v6.find(({ address }) => address.startsWith('fe80:')) ?? v6[0];
    return [
      ...v4.map((entry) => lanInterface(name, 4, entry.address, [entry.cidr])),
      ...(linkLocal === undefined
        ? []
        : [
            lanInterface(
              name,
              6,
              linkLocal.address,
              v6.map(({ cidr }) => cidr),
            ),
          ]),
    ];
  });
}

/** True for loopback and every address of this machine. */
export function isOwnAddress(address: string): boolean {
  const plain = unmappedAddress(address).replace(/%.*$/, '');
  return (
    plain.startsWith('127.') ||
    Object.values(networkInterfaces()).some((entries) => entries?.some((entry) => entry.address === plain))
  );
}

/** True for this machine and everybody on a subnet of it. */
export function isNeighbour(address: string): boolean {
  const plain = unmappedAddress(address);
  // Asked once a connection, so addresses that come and go are noticed.
  return lanInterfaces(Object.keys(networkInterfaces())).some((lan) => lan.contains(plain));
}

function lanInterface(name: string, family: 4 | 6, address: string, cidrs: readonly (string | null)[]): LanInterface {
  const subnets = new BlockList();
  for (const cidr of cidrs) {
    const [network, prefix] = cidr?.split('/') ?? [];
    if (network !== undefined) subnets.addSubnet(network, Number(prefix), family === 4 ? 'ipv4' : 'ipv6');
  }
  return {
    name,
    family,
    address,
    contains(other) {
      const [plain = '', zone] = other.split('%');
      if (isIP(plain) !== family || (zone !== undefined && zone !== name)) return false;
      return subnets.check(plain, family === 4 ? 'ipv4' : 'ipv6');
    },
  };
}
