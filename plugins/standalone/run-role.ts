/** Runs a role in this process, or in a crew of them: the same command line starts the one that leads and its workers. */
import cluster from 'node:cluster';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { isPeerDistError } from '../../lib/errors.ts';
import type { ServerSecret } from '../../lib/protocol/pccrc/index.ts';
import { joinCrew, type Member } from './crew/member.ts';
import { keptSecret, SECRET_FILE } from './kept-secret.ts';
import type { CrewPlan } from './lead.ts';
import { randomSecret } from './secret-options.ts';
import type { Service } from './service.ts';
import { storeOptions, type StoreValues } from './store-options.ts';
import type { RoleName, StoreOptions } from './stores.ts';
import { runService, type Terminal } from './terminal.ts';
import type { ListenAddress } from './units.ts';

type Secrets = readonly [ServerSecret, ...ServerSecret[]];

/** What every role is started with. */
export interface CommonOptions {
  readonly admin: ListenAddress | undefined;
  readonly store: StoreOptions;
  readonly warn: (line: string) => void;
}

export interface RoleRun<S extends Service> {
  readonly role: RoleName;
  readonly values: StoreValues & { readonly admin: ListenAddress | false };
  /** The server secret of the command line, if it has one. */
  readonly given?: ServerSecret | undefined;
  /** @param secrets the current one first */
  readonly start: (common: CommonOptions, secrets: Secrets, member: Member | undefined) => Promise<S>;
  readonly lead: (plan: CrewPlan) => Promise<S>;
  /** What the process does besides that is alone, or leads. */
  readonly also?: ((service: S) => Promise<void>) | undefined;
}

export async function runRole<S extends Service>(
  terminal: Terminal,
  exit: (code: number) => void,
  { role, values, given, start, lead, also }: RoleRun<S>,
): Promise<void> {
  const { warn } = terminal;
  const admin = values.admin === false ? undefined : values.admin;
  if (cluster.isWorker)
    return work(terminal, exit, async (member) => {
      const store = storeOptions(values, role, () => member.secrets);
      return start({ admin: undefined, store, warn: () => {} }, member.secrets, member);
    });
  const secrets: Secrets =
    given === undefined && isSecretNeeded(role, values)
      ? keptSecrets(values.stateDir, warn)
      : [given ?? randomSecret()];
  const store = storeOptions(values, role, () => secrets);
  const { workers } = values;
  const service =
    workers > 1
      ? await lead({ role, workers, admin, store, secrets, warn })
      : await start({ admin, store, warn }, secrets, undefined);
  const running = runService(service, terminal);
  await also?.(service);
  const failure = await running;
  if (failure === undefined) return;
  warn(`peerdist: ${failure}`);
  exit(1);
}

async function work(
  { stopRequested }: Terminal,
  exit: (code: number) => void,
  start: (member: Member) => Promise<Service>,
): Promise<void> {
  const member = await joinCrew();
  try {
    const service = await start(member);
    member.ready(service);
    await Promise.race([member.stopRequested, stopRequested]);
    await service.stop();
  } catch (error) {
    if (!isPeerDistError(error)) throw error;
    // The leader says it, once for all.
    await member.fail(error.message);
    exit(2);
  }
  process.disconnect();
}

/** A branch seals nothing but what leaves its machine. */
function isSecretNeeded(role: RoleName, { store }: StoreValues): boolean {
  return role === 'reverse' || typeof store === 'object';
}

/** The secrets that the state directory keeps; where it cannot keep any, one for this run. */
function keptSecrets(directory: string, warn: (line: string) => void): Secrets {
  try {
    const { current, previous, isNew } = keptSecret(directory);
    if (isNew)
      warn(`made a server secret in ${directory}: peerdist secret export and import take it to other machines`);
    return [current, ...previous];
  } catch (error) {
    // One that is there and must not be used, or cannot be read, is for a person to look at.
    if (!isPeerDistError(error) || existsSync(join(directory, SECRET_FILE))) throw error;
    warn(`${error.message}; made one for this run: branches will not recognise content after a restart`);
    return [randomSecret()];
  }
}
