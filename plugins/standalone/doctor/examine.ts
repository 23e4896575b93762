/** Looks at everything that a role needs, in the order in which it would miss it. */
import type { Command } from 'commander';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import { located } from '../config/apply.ts';
import type { ConfigSection } from '../config/config-file.ts';
import { checkRole, type RoleDefinition } from '../commands/role-command.ts';
import type { RunValues } from '../options/role-options.ts';
import { readSecret, type SecretOptions } from '../options/secret-options.ts';
import { storeOptions } from '../options/store-options.ts';
import { isSecretKept } from '../roles/run-role.ts';
import type { RoleName } from '../roles/stores.ts';
import { readText } from '../options/tls-options.ts';
import { type ListenAddress, parsePeer, PEER_PORT } from '../options/units.ts';
import { bad, type Finding, ok, skipped } from './finding.ts';
import { checkListener, checkMemory, checkMulticast, checkOpenFiles } from './machine.ts';
import { checkNeighbour, checkOrigin } from './network.ts';
import {
  checkCertificate,
  checkDisk,
  checkGivenSecret,
  checkKeptSecret,
  checkRedis,
  checkRoom,
  checkStateDirectory,
} from './state.ts';

/** What any role may have been given. */
interface Values extends RunValues, SecretOptions {
  readonly listen: ListenAddress;
  readonly origin?: string;
  readonly originCa?: string;
  readonly tlsCert?: string;
  readonly offerListen?: ListenAddress | false;
  readonly proxy?: ListenAddress;
  readonly upstream?: string;
  readonly peers?: boolean;
  readonly peerListen?: ListenAddress;
  readonly discovery?: boolean;
  readonly discoveryInterface?: string[];
  readonly discoveryPort?: number;
  readonly hostedCache?: string[];
  readonly peer?: string[];
  readonly sibling?: string[];
}

/** @param command of the role, with its values */
export async function* examine(
  definition: RoleDefinition<never>,
  command: Command,
  section: ConfigSection | undefined,
): AsyncGenerator<Finding> {
  const role = command.name() as RoleName;
  const values = command.opts<Values>();
  const configuration = await checkConfiguration(definition, command, section);
  yield configuration;
  yield* checkListeners(values);
  yield checkOpenFiles();
  yield checkMemory(values.memory, values.workers);
  yield* checkState(role, values);
  if (isSecretKept(role, values)) yield checkSecret(values, command);
  yield checkCertificate('certificate', values.tlsCert);
  yield* checkNetwork(role, values);
}

async function checkConfiguration(
  definition: RoleDefinition<never>,
  command: Command,
  section: ConfigSection | undefined,
): Promise<Finding> {
  const what = 'configuration';
  try {
    await located(section, () => checkRole(definition, command));
    return ok(what, section === undefined ? 'nothing contradicts itself' : 'the file and the options fit together');
  } catch (error) {
    if (!isPeerDistError(error)) throw error;
    return bad(what, error.message, 'correct it; peerdist check-config FILE says where the next mistake is');
  }
}

async function* checkListeners(values: Values): AsyncGenerator<Finding> {
  const { admin } = values;
  yield await checkListener('--listen', values.listen, admin);
  const others = [
    ['--peer-listen', values.peers === false ? undefined : values.peerListen],
    ['--offer-listen', values.offerListen],
    ['--proxy', values.proxy],
    ['--admin', admin],
  ] as const;
  for (const [name, address] of others)
    if (address !== undefined && address !== false) yield await checkListener(name, address, admin);
}

async function* checkState(role: RoleName, values: Values): AsyncGenerator<Finding> {
  const { store, stateDir } = values;
  if (store === 'memory') {
    yield skipped('store', 'in memory: nothing is kept across restarts');
    return;
  }
  const directory = checkStateDirectory(stateDir);
  yield directory;
  if (typeof store === 'object') yield await checkRedis(store.url);
  else if (directory.verdict !== 'bad') {
    const options = storeOptions(values, role, () => {
      throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'a store on disk is not sealed');
    });
    if (options.kind === 'disk') yield checkRoom(stateDir, options.maxBytes);
    yield await checkDisk(stateDir, role);
  }
}

function checkSecret(values: Values, command: Command): Finding {
  const what = 'server secret';
  try {
    const given = readSecret(
      values,
      () => {},
      (name) => command.getOptionValueSource(name),
    );
    if (given === undefined) return checkKeptSecret(values.stateDir);
    return checkGivenSecret(given.reveal().byteLength, values.secretFile);
  } catch (error) {
    return bad(what, (error as Error).message, 'see --secret-file');
  }
}

async function* checkNetwork(role: RoleName, values: Values): AsyncGenerator<Finding> {
  if (values.origin !== undefined) yield* await checkOrigin(values.origin, certificates(values.originCa));
  if (role !== 'branch') return;
  if (values.upstream !== undefined) {
    const { hostname, port, protocol } = new URL(values.upstream);
    const host = hostname.replace(/^\[(.*)\]$/, '$1');
    const fallback = protocol === 'https:' ? 443 : 80;
    yield await checkNeighbour('upstream proxy', { host, port: port === '' ? fallback : Number(port) });
  }
  for (const cache of values.hostedCache ?? []) yield await checkNeighbour('hosted cache', parsePeer(cache));
  for (const peer of values.peer ?? []) yield await checkNeighbour('peer', parsePeer(peer));
  for (const sibling of values.sibling ?? []) yield await checkNeighbour('sibling', parsePeer(sibling, PEER_PORT));
  const looks = values.peers !== false && (values.discovery ?? values.hostedCache === undefined);
  if (looks) yield await checkMulticast(values.discoveryInterface, values.discoveryPort ?? 3702);
  else yield skipped('multicast', 'peers are not looked for');
}

function certificates(file: string | undefined): string | undefined {
  try {
    return file === undefined ? undefined : readText('--origin-ca', file);
  } catch {
    // The configuration has been found wrong already.
    return undefined;
  }
}
