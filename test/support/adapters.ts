/** What the tests of the adapters share: applications on free ports, files that can change, and content information put to the test. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { PeerDist } from '../../lib/peerdist/index.ts';
import { type Answer, ask, listen, Observations, until, V2_REQUEST } from './proxies.ts';

type Owner = Pick<Test, 'teardown'>;

/** An application on a free port of the loopback. */
export async function serve(t: Owner, application: RequestListener | Server): Promise<number> {
  const server = typeof application === 'function' ? createServer(application) : application;
  await listen(t, server);
  return (server.address() as AddressInfo).port;
}

/** A folder with these files, until the end of the test. */
export function folder(t: Owner, files: Readonly<Record<string, Uint8Array | string>>): string {
  const path = mkdtempSync(join(tmpdir(), 'peerdist-adapters-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(path, name), bytes);
  return path;
}

/** True when content information describes exactly these bytes: every block of them has the hash it says. */
export async function describes(information: Uint8Array, bytes: Uint8Array, offset = 0): Promise<boolean> {
  await using peerdist = await PeerDist.open();
  await using handle = await peerdist.client.openContent(Buffer.from('adapters-test-16'));
  const { range } = await handle.setContentInformation(information);
  const { verified, rejected, pending } = await handle.addData(offset, bytes);
  return (
    range.offset === offset &&
    range.length === bytes.byteLength &&
    rejected === 0 &&
    verified + pending === range.length
  );
}

/** What an adapter reports, with what tests wait for. */
export class AdapterObservations extends Observations {
  /** Waits until so many bodies have become content information, and are known as such. */
  async published(count = 1): Promise<void> {
    await until(() => this.count('publication', { result: 'completed' }) >= count, `${count} bodies are published`);
    // What is published is remembered within the same turn of the event loop.
    await new Promise(setImmediate);
  }
}

/** A request of a client that can use content information. */
export function askCoded(
  port: number,
  target: string,
  fields: Readonly<Record<string, string | readonly string[]>> = {},
): Promise<Answer> {
  return ask(port, target, { fields: { ...V2_REQUEST, ...fields } });
}
