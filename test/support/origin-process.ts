/**
 * An origin in a process of its own, for tests that have it run elsewhere: `node origin-process.js FILE…`. It serves each file under its
 * name, on a free port of the loopback; `/body-bytes/NAME` says how many bytes of it went out.
 */
import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { basename } from 'node:path';
import { Origin } from './proxies.ts';

const origin = new Origin();
for (const file of process.argv.slice(2)) {
  const path = `/${basename(file)}`;
  origin.resources.set(path, { body: readFileSync(file), etag: '"1"' });
  origin.resources.set(`/body-bytes${path}`, (_request, response) => {
    response.end(String(origin.bodyBytes(path)));
  });
}
origin.server.listen(0, '127.0.0.1', () => {
  process.stdout.write(`listening on http://127.0.0.1:${(origin.server.address() as AddressInfo).port}\n`);
});
