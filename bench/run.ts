/** `npm run bench [-- part…]`: every figure of README's performance section, as ratios against yardsticks of the same run. */
import { benchApi } from './api.ts';
import { benchCold, benchFirstByte, benchWarm } from './branch.ts';
import { benchEstimate } from './estimate.ts';
import { benchHashing } from './hashing.ts';
import { benchHosted } from './hosted.ts';
import { benchLoad } from './load.ts';
import { benchMemory } from './memory.ts';
import { benchOperate } from './operate.ts';
import { benchPaired } from './paired.ts';
import { benchPeers } from './peers.ts';
import { benchPlain } from './plain.ts';
import { benchReverse } from './reverse.ts';
import { type Line, printReport } from './report.ts';
import { benchStores } from './stores.ts';
import { benchWorkers } from './workers.ts';

const PARTS: Readonly<Record<string, () => Promise<Line[]>>> = {
  hashing: benchHashing,
  reverse: benchReverse,
  warm: benchWarm,
  cold: benchCold,
  plain: benchPlain,
  paired: benchPaired,
  'first-byte': benchFirstByte,
  peers: benchPeers,
  hosted: benchHosted,
  stores: benchStores,
  workers: benchWorkers,
  operate: benchOperate,
  load: benchLoad,
  api: benchApi,
  memory: benchMemory,
  estimate: benchEstimate,
};

const wanted = process.argv.slice(2);
const missed: Line[] = [];
for (const [name, part] of Object.entries(PARTS)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  missed.push(...printReport(name, await part()));
}
if (missed.length > 0) console.log(`missed: ${missed.map(({ what }) => what).join('; ')}`);
process.exitCode = missed.length === 0 ? 0 : 1;
