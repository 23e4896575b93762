/** A line to head office in a process of its own: `node relay.js PORT HOST PORT BITS_PER_SECOND ROUND_TRIP_MS`. Each line it reads is answered by the bytes it has carried. */
import { createInterface } from 'node:readline';
import { WanLink } from '../plugins/standalone/demo/wan-link.ts';

const [port, host = '', targetPort, bitsPerSecond, roundTripMs] = process.argv.slice(2);
const link = new WanLink({
  target: { host, port: Number(targetPort) },
  bitsPerSecond: Number(bitsPerSecond),
  roundTripMs: Number(roundTripMs),
});
link.server.listen(Number(port), '127.0.0.1', () => console.log('listening'));
createInterface({ input: process.stdin }).on('line', () => console.log(link.bytes));
