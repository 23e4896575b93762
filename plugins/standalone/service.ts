/** Starts a role's listeners, says where they are, and stops them gracefully. */
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { PeerDistError } from '../../lib/errors.ts';
import type { Kit } from '../../lib/kit/index.ts';
import type { PeerDist } from '../../lib/peerdist/index.ts';
import type { HttpProxyHost, TlsIdentity } from '../http-proxy/index.ts';
import type { Metrics } from '../metrics/index.ts';
import { createAdminServer } from './admin.ts';
import { formatListen, type ListenAddress } from './units.ts';

export interface ServiceParts {
  readonly host: HttpProxyHost;
  readonly kit: Kit;
  readonly peerdist: PeerDist;
  readonly metrics: Metrics;
  readonly listen: ListenAddress;
  /** Undefined for none. */
  readonly admin: ListenAddress | undefined;
  readonly tls?: TlsIdentity | undefined;
  /** Called last when the service stops. */
  readonly onStop?: (() => Promise<void> | undefined) | undefined;
}

/** A role that runs. */
export interface Service {
  /** Where clients connect to; the port is real when 0 was asked for. */
  readonly address: ListenAddress;
  readonly adminAddress: ListenAddress | undefined;
  readonly metrics: Metrics;
  readonly scheme: 'http' | 'https';
  /** Lets running exchanges end for up to `graceMs`, then cuts them. Never rejects. */
  stop(graceMs?: number): Promise<void>;
}

/** Milliseconds running exchanges get at shutdown. Policy, not protocol. */
const GRACE_MS = 10_000;

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when an address cannot be listened on */
export async function startService({
  host,
  kit,
  peerdist,
  metrics,
  listen,
  admin,
  tls,
  onStop,
}: ServiceParts): Promise<Service> {
  await kit.start();
  const servers: Server[] = [];
  const open = async (server: Server, address: ListenAddress): Promise<ListenAddress> => {
    servers.push(server);
    return listenOn(server, address);
  };
  const stop = async (graceMs = GRACE_MS): Promise<void> => {
    await Promise.all(servers.map((server) => closeServer(server, graceMs)));
    await kit.stop();
    host.close();
    await peerdist.close();
    await onStop?.();
  };
  try {
    const address = await open(host.createServer(tls), listen);
    const adminServer = createAdminServer(metrics);
    host.shelter(adminServer);
    const adminAddress = admin && (await open(adminServer, admin));
    return { address, adminAddress, metrics, scheme: tls === undefined ? 'http' : 'https', stop };
  } catch (error) {
    await stop(0);
    throw error;
  }
}

function listenOn(server: Server, address: ListenAddress): Promise<ListenAddress> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(
        new PeerDistError(
          'ERR_PEERDIST_INVALID_OPTION',
          `cannot listen on ${formatListen(address)}: ${reason(error)}`,
          { cause: error },
        ),
      );
    });
    server.listen(address.port, address.host, () => {
      const { address: host, port } = server.address() as AddressInfo;
      resolve({ host, port });
    });
  });
}

function reason({ code, message }: NodeJS.ErrnoException): string {
  if (code === 'EADDRINUSE') return 'the port is in use';
  if (code === 'EACCES') return 'no permission for this port';
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') return 'this machine has no such address';
  return code ?? message;
}

function closeServer(server: Server, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    if (!server.listening) return resolve();
    const timer = setTimeout(() => server.closeAllConnections(), graceMs);
    server.close(() => {
      clearTimeout(timer);
      resolve();
    });
    server.closeIdleConnections();
    return undefined;
  });
}
