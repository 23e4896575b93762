/** The machine: listeners, limits, multicast, memory. */
import { readFileSync } from 'node:fs';
import { get } from 'node:http';
import { createServer } from 'node:net';
import { totalmem } from 'node:os';
import { isPeerDistError } from '../../../lib/errors.ts';
import { Discovery } from '../../../lib/services/index.ts';
import { MemoryBlockStore } from '../../../lib/stores/index.ts';
import { formatBytes, formatListen, type ListenAddress } from '../options/units.ts';
import { bad, type Finding, ok, skipped, warning } from './finding.ts';

/** Open files below which a busy proxy runs out of them. Policy. */
const FEW_FILES = 4096;

const NO_IPV6: ReadonlySet<string> = new Set(['EAFNOSUPPORT', 'EADDRNOTAVAIL']);

/** @param admin where a running service of ours would say that it is one */
export async function checkListener(
  what: string,
  address: ListenAddress,
  admin: ListenAddress | false,
): Promise<Finding> {
  const code = await tryToListen(address);
  const place = formatListen(address);
  if (code === undefined) return ok(what, `${place} is free`);
  if (code === 'EADDRINUSE') {
    if (admin !== false && (await isHealthy(admin))) return ok(what, `${place} is in use, by a peerdist that runs`);
    return bad(
      what,
      `${place} is in use by another program`,
      `end that (ss -ltnp shows it), or choose another ${what}`,
    );
  }
  if (code === 'EACCES')
    return bad(
      what,
      `this user may not listen on ${place}`,
      'ports below 1024 take root, CAP_NET_BIND_SERVICE, or sysctl net.ipv4.ip_unprivileged_port_start=80',
    );
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND')
    return bad(what, `this machine has no address ${address.host}`, `choose one of \`ip address\`, or 0.0.0.0 for all`);
  return bad(what, `${place} cannot be listened on: ${code}`, `choose another ${what}`);
}

function tryToListen({ host, port }: ListenAddress): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', ({ code = 'unknown' }: NodeJS.ErrnoException) =>
      // As a role does where IPv6 is switched off.
      resolve(host === '::' && NO_IPV6.has(code) ? tryToListen({ host: '0.0.0.0', port }) : code),
    );
    server.listen(port, host, () => server.close(() => resolve(undefined)));
  });
}

function isHealthy({ host, port }: ListenAddress): Promise<boolean> {
  return new Promise((resolve) => {
    const asked = get({
      host: host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host,
      port,
      path: '/healthz',
      timeout: 2_000,
    });
    asked.once('response', (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    asked.once('timeout', () => asked.destroy());
    asked.once('error', () => resolve(false));
    asked.once('close', () => resolve(false));
  });
}

/** Whether this machine can look for peers on its LAN. */
export async function checkMulticast(interfaces: readonly string[] | undefined, port: number): Promise<Finding> {
  const what = 'multicast';
  let usable: readonly string[];
  try {
    const discovery = await Discovery.open({ store: new MemoryBlockStore({ maxBytes: 1 }), interfaces, port });
    usable = discovery.interfaces;
    discovery.close();
  } catch (error) {
    if (!isPeerDistError(error)) throw error;
    return bad(what, error.message, 'choose one of `ip link`, or leave out --discovery-interface');
  }
  if (usable.length > 0) return ok(what, `peers can be looked for on ${usable.join(', ')}`);
  return bad(
    what,
    `peers cannot be looked for on ${interfaces === undefined ? 'any network interface' : interfaces.join(', ')}`,
    `\`ip link\` has to show the interface as UP and MULTICAST; UDP port ${port} must be free or shared. Without: --no-discovery and --peer`,
  );
}

export function checkOpenFiles(limits: () => string = () => readFileSync('/proc/self/limits', 'utf8')): Finding {
  const what = 'open files';
  let most: string | undefined;
  try {
    most = /^Max open files\s+(\S+)/m.exec(limits())?.[1];
  } catch {
    most = undefined;
  }
  if (most === undefined) return skipped(what, 'this system does not tell its limit');
  if (most === 'unlimited' || Number(most) >= FEW_FILES) return ok(what, `up to ${most}`);
  return warning(
    what,
    `at most ${most} connections and files at a time`,
    'ulimit -n 65536, or LimitNOFILE=65536 in the unit',
  );
}

export function checkMemory(memoryBytes: number, workers: number): Finding {
  const what = 'memory';
  const wanted = memoryBytes * workers;
  const says = `${workers} × --memory ${formatBytes(memoryBytes)} of ${formatBytes(totalmem())}`;
  if (wanted < totalmem() / 2) return ok(what, says);
  return warning(what, says, 'take less than half of the machine: a smaller --memory, or fewer --workers');
}
