/** What a certificate authority can vouch for at most: the name constraints of RFC 5280 4.2.1.10, in DER. */
import { isIP, SocketAddress } from 'node:net';

/** Undefined: all of that kind are permitted; empty: none is. */
export interface PermittedNames {
  /** Host names; each stands for the names beneath it too. */
  readonly names: readonly string[] | undefined;
  /** Addresses, each for itself. */
  readonly addresses: readonly string[] | undefined;
}

const SEQUENCE = 0x30;
/** Context-specific and constructed: the two lists of subtrees. */
const PERMITTED = 0xa0;
const EXCLUDED = 0xa1;
/** Context-specific: the two kinds of a GeneralName that servers have. */
const DNS_NAME = 0x82;
const IP_ADDRESS = 0x87;

/** A kind of name that nothing is permitted of has to be excluded: the standard takes it as permitted otherwise. */
export function encodeConstraints({ names, addresses }: PermittedNames): Uint8Array<ArrayBuffer> {
  const permitted = [
    ...(names ?? []).map((name) => der(DNS_NAME, Buffer.from(name, 'latin1'))),
    ...(addresses ?? []).map((address) => {
      const bytes = addressBytes(address);
      return der(IP_ADDRESS, Buffer.concat([bytes, Buffer.alloc(bytes.byteLength, 0xff)]));
    }),
  ];
  const excluded = [
    ...(names?.length !== 0 ? [] : [der(DNS_NAME, Buffer.alloc(0))]),
    ...(addresses?.length !== 0 ? [] : [der(IP_ADDRESS, Buffer.alloc(8)), der(IP_ADDRESS, Buffer.alloc(32))]),
  ];
  const subtrees = (tag: number, list: readonly Buffer[]): Buffer[] =>
    list.length === 0 ? [] : [der(tag, ...list.map((base) => der(SEQUENCE, base)))];
  return Uint8Array.from(der(SEQUENCE, ...subtrees(PERMITTED, permitted), ...subtrees(EXCLUDED, excluded)));
}

/** The permitted names of an extension, also of one that others have made: of addresses those that stand for themselves. */
export function decodePermitted(bytes: Uint8Array): PermittedNames {
  const names: string[] = [];
  const addresses: string[] = [];
  const constrained = new Set<number>();
  let hasNetworks = false;
  for (const { tag: list, content } of elements(bytes).flatMap((each) => elements(each.content)))
    for (const subtree of elements(content)) {
      const [base] = elements(subtree.content);
      if (base === undefined) continue;
      constrained.add(base.tag);
      if (list !== PERMITTED) continue;
      if (base.tag === DNS_NAME) names.push(Buffer.from(base.content).toString('latin1').toLowerCase());
      if (base.tag !== IP_ADDRESS) continue;
      const half = base.content.byteLength / 2;
      if (base.content.subarray(half).every((byte) => byte === 0xff))
        addresses.push(addressText(base.content.subarray(0, half)));
      else hasNetworks = true;
    }
  return {
    names: constrained.has(DNS_NAME) ? names : undefined,
    addresses: constrained.has(IP_ADDRESS) && !hasNetworks ? addresses : undefined,
  };
}

export function isPermitted({ names, addresses }: PermittedNames, host: string): boolean {
  if (isIP(host) !== 0) return addresses?.includes(addressText(addressBytes(host))) ?? true;
  return names?.some((name) => host === name || host.endsWith(`.${name.replace(/^\./, '')}`)) ?? true;
}

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const length = content.byteLength;
  const head = length < 0x80 ? [tag, length] : [tag, 0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from(head), content]);
}

interface Element {
  readonly tag: number;
  readonly content: Uint8Array;
}

/** Elements one behind the other, as far as they are whole. */
function elements(bytes: Uint8Array): Element[] {
  const found: Element[] = [];
  for (let at = 0; at + 2 <= bytes.byteLength;) {
    const [tag = 0, first = 0] = bytes.subarray(at, at + 2);
    const more = first < 0x80 ? 0 : first & 0x7f;
    let length = more === 0 ? first : 0;
    for (const byte of bytes.subarray(at + 2, at + 2 + more)) length = length * 256 + byte;
    const start = at + 2 + more;
    if (start + length > bytes.byteLength) break;
    found.push({ tag, content: bytes.subarray(start, start + length) });
    at = start + length;
  }
  return found;
}

function addressBytes(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split('.').map(Number));
  // The canonical spelling has at most one gap.
  const [head = '', tail] = new SocketAddress({ address, family: 'ipv6' }).address.split('::');
  const groups = (text: string | undefined): string[] => (text === undefined || text === '' ? [] : text.split(':'));
  const [left, right] = [groups(head), groups(tail)];
  const all = [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right];
  return Buffer.from(all.map((group) => group.padStart(4, '0')).join(''), 'hex');
}

function addressText(bytes: Uint8Array): string {
  if (bytes.byteLength === 4) return bytes.join('.');
  const groups = Buffer.from(bytes).toString('hex').match(/.{4}/g) ?? [];
  if (groups.length !== 8) return '';
  return new SocketAddress({ address: groups.join(':'), family: 'ipv6' }).address;
}
