/** How a cluster divides keys among its servers (Redis cluster specification). */
import { membersOf, type RedisReply } from './redis-client.ts';
import { isPort, type RedisServer } from './redis-url.ts';

export const SLOTS = 16_384;
/** Servers a cluster may have for us. Policy, not protocol. */
const MAX_MASTERS = 128;

export interface SlotRange extends RedisServer {
  readonly first: number;
  readonly last: number;
}

/** CRC-16/XMODEM, one byte at a time. */
const TABLE = Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit += 1) crc = (crc & 0x8000) === 0 ? crc << 1 : (crc << 1) ^ 0x1021;
  return crc & 0xffff;
});

/** Slot of a key: what is between its first `{` and the next `}` decides, unless that is empty. */
export function slotOf(key: string): number {
  const open = key.indexOf('{');
  const close = open < 0 ? -1 : key.indexOf('}', open);
  let crc = 0;
  for (const byte of Buffer.from(close > open + 1 ? key.slice(open + 1, close) : key))
    crc = ((crc << 8) & 0xffff) ^ (TABLE[(crc >>> 8) ^ byte] as number);
  return crc % SLOTS;
}

/**
 * Reads what `CLUSTER SLOTS` replies; what makes no sense is left out.
 *
 * @param host of the server that replied, which need not name itself
 */
export function parseSlots(reply: RedisReply, host: string): SlotRange[] {
  const ranges: SlotRange[] = [];
  const masters = new Set<string>();
  for (const range of membersOf(reply)) {
    const [first, last, master] = membersOf(range);
    const [name, port] = membersOf(master);
    if (!isSlot(first) || !isSlot(last) || typeof port !== 'number' || !isPort(port)) continue;
    const named = Buffer.isBuffer(name) ? name.toString('latin1') : '';
    // A server that has not been told its name.
    if (!/^[A-Za-z0-9.:_-]{0,253}$/.test(named)) continue;
    const server = { host: named === '' ? host : named, port };
    masters.add(addressOf(server));
    if (masters.size > MAX_MASTERS) break;
    ranges.push({ ...server, first, last });
  }
  return ranges;
}

export function addressOf({ host, port }: RedisServer): string {
  return `${host}:${port}`;
}

function isSlot(value: RedisReply | undefined): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < SLOTS;
}
