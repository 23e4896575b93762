/** Runs a role in this process, or in a crew of them: the same command line starts the one that leads and its workers. */
import cluster from 'node:cluster';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { isPeerDistError } from '../../../lib/errors.ts';
import { isLoopback } from '../../http-proxy/index.ts';
import type { ServerSecret } from '../../../lib/protocol/pccrc/index.ts';
import { joinCrew, type Member } from '../crew/member.ts';
import { Exchanges } from './exchanges.ts';
import { keptSecret, SECRET_FILE } from '../kept/kept-secret.ts';
import type { CrewPlan } from './lead.ts';
import { Log } from './log.ts';
import { readAdminToken, type RunValues } from '../options/role-options.ts';
import type { Shown } from './roles.ts';
import { randomSecret } from '../options/secret-options.ts';
import type { Adjustment, Display, Service, Update } from './service.ts';
import { writeAside } from '../kept/state-directory.ts';
import { storeOptions } from '../options/store-options.ts';
import type { RoleName, StoreOptions } from './stores.ts';
import type { Terminal } from '../terminal.ts';
import { formatListen, type ListenAddress } from '../options/units.ts';

type Secrets = readonly [ServerSecret, ...ServerSecret[]];

/** What every role is started with. */
export interface CommonOptions extends Shown {
  readonly admin: ListenAddress | undefined;
  readonly adminToken: string | undefined;
  readonly store: StoreOptions;
  /** Told once, by whoever leads. */
  readonly warn: (line: string) => void;
  /** Told by each process of what happens to it while it runs. */
  readonly notice: (line: string) => void;
}

export interface RoleRun<S extends Service, V extends RunValues = RunValues> {
  readonly role: RoleName;
  readonly values: V;
  /** The server secret of the command line, if it has one. */
  readonly given?: ServerSecret | undefined;
  /**
   * @param values those that apply: in a worker, its leader's
   * @param secrets the current one first
   */
  readonly start: (values: V, common: CommonOptions, secrets: Secrets, member: Member | undefined) => Promise<S>;
  readonly lead: (plan: CrewPlan) => Promise<S>;
  /** What the process does besides that is alone, or leads. */
  readonly also?: ((service: S, log: Log) => Promise<void>) | undefined;
  /** Reads the configuration anew. @throws {@link PeerDistError} when that has become wrong */
  readonly reread: () => Promise<{
    readonly changed: readonly string[];
    readonly values: RunValues;
    readonly adjustment: Adjustment;
  }>;
}

export async function runRole<S extends Service, V extends RunValues>(
  terminal: Terminal,
  exit: (code: number) => void,
  run: RoleRun<S, V>,
): Promise<void> {
  if (cluster.isWorker) return work(terminal, exit, run);
  const { values } = run;
  const log = await Log.open(values, terminal, values.site);
  try {
    return await carry(terminal, exit, log, run);
  } finally {
    await log.flush();
  }
}

async function carry<S extends Service, V extends RunValues>(
  terminal: Terminal,
  exit: (code: number) => void,
  log: Log,
  { role, values, given, start, lead, also, reread }: RoleRun<S, V>,
): Promise<void> {
  const warn = (line: string): void => log.warn(line);
  // While it starts there is nothing to change yet, and a signal is no reason to die.
  let onReload = (): void => {};
  terminal.onReload(() => onReload());
  const secrets: Secrets =
    given === undefined && isSecretKept(role, values) ? keptSecrets(role, values, warn) : [given ?? randomSecret()];
  const store = storeOptions(values, role, () => secrets);
  const admin = values.admin === false ? undefined : values.admin;
  const adminToken = readAdminToken(values);
  if (admin !== undefined && adminToken === undefined && !isLoopback(admin.host))
    warn('other machines can reach the admin listener, and no token is wanted there: see --admin-token');
  const shown = {
    ...shownOf(values, log),
    keeper: store.kind === 'memory' ? undefined : keeper(values.stateDir, role),
  };
  const { workers } = values;
  const service =
    workers > 1
      ? await lead({ role, values, workers, admin, adminToken, shown, store, secrets, warn })
      : await start(values, { admin, adminToken, ...shown, store, warn, notice: warn }, secrets, undefined);
  for (const listener of service.listeners) {
    const { role: purpose, scheme, address } = listener;
    log.info(`listening on ${scheme}://${formatListen(address)}${purpose === 'clients' ? '' : ` (${purpose})`}`);
  }
  onReload = () => void reload(service, log, reread);
  const stopped = Promise.race([
    terminal.stopRequested.then(() => undefined),
    ...(service.failed === undefined ? [] : [service.failed]),
  ]);
  await also?.(service, log);
  const failure = await stopped;
  log.info(`ending; what is being sent gets up to ${values.drainTimeout / 1000} s`);
  await service.stop(values.drainTimeout);
  if (failure === undefined) return;
  terminal.warn(`peerdist: ${failure}`);
  exit(1);
}

async function work<S extends Service, V extends RunValues>(
  terminal: Terminal,
  exit: (code: number) => void,
  { role, start }: RoleRun<S, V>,
): Promise<void> {
  const { stopRequested, onReload } = terminal;
  // A signal to all processes at once is for the one that leads, which tells the others.
  onReload(() => {});
  const member = await joinCrew();
  // Not what its own file says, which may have changed since: workers are alike.
  const values = member.values as V;
  const log = await Log.open(values, terminal, values.site);
  try {
    const store = storeOptions(values, role, () => member.secrets);
    // Its leader says what is to be said.
    const said = { warn: () => {}, notice: (line: string) => log.warn(line) };
    const common = { admin: undefined, adminToken: undefined, ...shownOf(values, log), store, ...said };
    const service = await start(values, common, member.secrets, member);
    member.onReload((update) => takeOver(service, log, update));
    member.ready(service);
    await Promise.race([member.stopRequested, stopRequested]);
    await service.stop(values.drainTimeout);
  } catch (error) {
    if (!isPeerDistError(error)) throw error;
    // The leader says it, once for all.
    await member.fail(error.message);
    exit(2);
  }
  await log.flush();
}

/** Reads the configuration anew. What is wrong, or needs a restart, is said and changes nothing. */
async function reload<S extends Service>(service: S, log: Log, reread: RoleRun<S>['reread']): Promise<void> {
  try {
    const { values, changed, adjustment } = await reread();
    const { logLevel, accessLog } = values;
    const update = { logLevel, accessLog, adjustment };
    takeOver(service, log, update);
    service.reload?.(update);
    log.info('the configuration was read anew');
    if (changed.length > 0) log.warn(`a restart is needed for ${changed.join(', ')}; going on as before`);
  } catch (error) {
    log.error(`the configuration is not taken over: ${(error as Error).message}`);
  }
}

/** What can fail comes first, so that all of it is taken over or nothing. */
function takeOver(service: Service, log: Log, { logLevel, accessLog, adjustment }: Update): void {
  service.adjust?.(adjustment);
  log.setLevel(logLevel);
  log.isAccessLogged = accessLog;
}

function shownOf({ site, dashboardNames }: RunValues, log: Log): Shown {
  const showsNames = dashboardNames === true;
  return { site, showsNames, exchanges: new Exchanges(log, { showsNames }) };
}

/** Keeps what was saved in the past beside the stores. */
function keeper(stateDirectory: string, role: RoleName): Display['keeper'] {
  const directory = join(stateDirectory, role);
  const file = join(directory, 'savings.json');
  return {
    read: () => readFileSync(file, 'utf8'),
    write: (text) => writeAside(directory, file, text, renameSync),
  };
}

/**
 * A branch describes by it what lasts as long as its store, and knows its siblings by it: in memory that takes one that is there. A hosted cache
 * seals nothing but what leaves its machine.
 */
export function isSecretKept(role: RoleName, { store, stateDir }: Pick<RunValues, 'store' | 'stateDir'>): boolean {
  if (typeof store === 'object') return true;
  if (role === 'hosted') return false;
  return role !== 'branch' || store === 'disk' || existsSync(join(stateDir, SECRET_FILE));
}

/** The secrets that the state directory keeps; where it cannot keep any, one for this run. */
function keptSecrets(
  role: RoleName,
  { store, stateDir: directory }: Pick<RunValues, 'store' | 'stateDir'>,
  warn: (line: string) => void,
): Secrets {
  // To a branch with a store of its own it is all the same, until there is another at its site.
  const isTold = role !== 'branch' || typeof store === 'object';
  try {
    const { current, previous, isNew } = keptSecret(directory);
    if (isNew && isTold)
      warn(`made a server secret in ${directory}: peerdist secret export and import take it to other machines`);
    return [current, ...previous];
  } catch (error) {
    // One that is there and must not be used, or cannot be read, is for a person to look at.
    if (!isPeerDistError(error) || existsSync(join(directory, SECRET_FILE))) throw error;
    if (isTold) warn(`${error.message}; made one for this run: branches will not recognise content after a restart`);
    return [randomSecret()];
  }
}
