/**
 * One download from a peer in a process of its own, so that its memory can be seen: `node peer-download.js INFORMATION PORT`. Prints the peak of
 * the process's memory in bytes, and how many bytes were at most asked for and not read yet.
 */
import { readFileSync } from 'node:fs';
import { PeerDist } from '../lib/peerdist/index.ts';
import { PeerSource } from '../lib/services/index.ts';
import { MemoryBlockStore } from '../lib/stores/index.ts';
import { grantHeapSlack } from '../plugins/standalone/heap.ts';
import { MiB } from './measure.ts';

grantHeapSlack();
const [file = '', port = ''] = process.argv.slice(2);
let asked = 0;
let read = 0;
let window = 0;
const peers = new PeerSource({ peers: [{ address: '127.0.0.1', port: Number(port) }] });
await using pd = await PeerDist.open({
  components: {
    blockStore: new MemoryBlockStore({ maxBytes: 16 * MiB }),
    sources: [
      {
        name: 'peer',
        trusted: true,
        deadlineMs: peers.deadlineMs,
        retrieve: (request, options) => {
          asked += request.content.block(request.ordinal).length;
          window = Math.max(window, asked - read);
          return peers.retrieve(request, options);
        },
      },
    ],
  },
});
await using handle = await pd.client.openContent(Buffer.alloc(16));
await handle.setContentInformation(readFileSync(file));
for await (const chunk of handle.createReadStream()) read += (chunk as Uint8Array).byteLength;
peers.close();
const peak = Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024;
console.log(JSON.stringify({ read, peak, window }));
