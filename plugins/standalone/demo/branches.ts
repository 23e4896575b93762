/** The branch proxies of the demonstration: processes of their own, on a LAN that is the loopback interface. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Discovery } from '../../../lib/services/index.ts';
import { MemoryBlockStore } from '../../../lib/stores/index.ts';
import { type ListenAddress, parseListen } from '../options/units.ts';

/** A `peerdist branch` that runs. */
export interface BranchProcess {
  /** For clients. */
  readonly address: ListenAddress;
  /** For peers, `host:port`. */
  readonly peers: string;
  /** For its administrator, `host:port`. */
  readonly admin: string;
  stop(): Promise<void>;
}

/** Two branch proxies that find each other by discovery; where loopback cannot multicast, the second is told of the first. */
export async function startTwoBranches(): Promise<{
  readonly branches: readonly [BranchProcess, BranchProcess];
  readonly areFound: boolean;
}> {
  const lan = await loopbackLan();
  const discovery =
    lan === undefined ? ['--no-discovery'] : ['--discovery-interface', lan.name, '--discovery-port', String(lan.port)];
  const first = await startBranchProcess([...discovery, '--site', 'branch A']);
  try {
    const known = lan === undefined ? ['--peer', first.peers] : [];
    const second = await startBranchProcess([...discovery, ...known, '--site', 'branch B']);
    return { branches: [first, second], areFound: lan !== undefined };
  } catch (error) {
    await first.stop();
    throw error;
  }
}

async function startBranchProcess(options: readonly string[]): Promise<BranchProcess> {
  const command = fileURLToPath(new URL('../main.js', import.meta.url));
  const listen = ['--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0', '--peer-listen', '127.0.0.1:0'];
  const rest = ['--store', 'memory', '--dashboard-names', '--no-access-log', '--log-format', 'json'];
  const child = spawn(process.execPath, [command, 'branch', ...listen, ...rest, ...options], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const places: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    const place = /listening on http:\/\/([^\s"]+)/.exec(line)?.[1];
    if (place !== undefined) places.push(place);
    if (places.length === 3) break;
  }
  const [clients, admin, peers] = places;
  if (clients === undefined || admin === undefined || peers === undefined)
    throw new Error('a branch proxy did not start');
  child.stdout.resume();
  return { address: parseListen(clients), admin, peers, stop: () => end(child) };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGTERM');
  await exit;
}

/** The loopback interface and a free port for discovery on it, so that nobody else's LAN hears of this. */
async function loopbackLan(): Promise<{ readonly name: string; readonly port: number } | undefined> {
  const name = Object.entries(networkInterfaces()).find(([, entries]) =>
    entries?.some(({ address }) => address === '127.0.0.1'),
  )?.[0];
  if (name === undefined) return undefined;
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  const discovery = await Discovery.open({ store: new MemoryBlockStore({ maxBytes: 1 }), interfaces: [name], port });
  const canMulticast = discovery.interfaces.length > 0;
  discovery.close();
  return canMulticast ? { name, port } : undefined;
}
