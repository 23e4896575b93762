/** Both sides on one machine: an origin, head office, branch, and a client that downloads twice. `node dist/examples/loopback.js` */
import { createServer, get } from 'node:http';
import type { AddressInfo } from 'node:net';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { startBranch, startReverse } from 'peerdist/plugins/standalone';
import { ServerSecret } from 'peerdist';

const content = randomBytes(4 * 1024 * 1024);
const origin = createServer((request, response) => {
  response.setHeader('etag', '"example"').setHeader('cache-control', 'max-age=60');
  response.end(request.method === 'HEAD' ? undefined : content);
}).listen(0, '127.0.0.1');
await once(origin, 'listening');

const anywhere = { listen: { host: '127.0.0.1', port: 0 }, admin: undefined };
const reverse = await startReverse({
  ...anywhere,
  origin: url(origin.address() as AddressInfo),
  secret: new ServerSecret(randomBytes(32)),
});
const branch = await startBranch({ ...anywhere, origin: url(reverse.address) });

for (const name of ['first', 'second']) {
  const bytes = await download(url(branch.address));
  console.log(
    `${name} download: ${bytes.equals(content) ? 'right' : 'WRONG'}, ${branch.metrics.savedBytes()} WAN bytes saved so far`,
  );
}
await branch.stop(0);
await reverse.stop(0);
origin.close();
origin.closeAllConnections();

function url({ port }: { port: number }): string {
  return `http://127.0.0.1:${port}`;
}

async function download(from: string): Promise<Buffer> {
  const [response] = (await once(get(`${from}/file`, { agent: false }), 'response')) as [AsyncIterable<Buffer>];
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk);
  return Buffer.concat(chunks);
}
