/** Roles as commands: each is defined once, and that one definition is run, checked without being run, and read anew while it runs. */
import cluster from 'node:cluster';
import type { Command } from 'commander';
import { configure, located } from '../config/apply.ts';
import type { ConfigSection } from '../config/config-file.ts';
import { effectiveConfig } from '../config/effective.ts';
import { unknownVariables } from '../config/layers.ts';
import { type Key, keysOf } from '../config/schema.ts';
import { checkRunValues, readAdminToken, type RunValues } from '../options/role-options.ts';
import type { RoleRun } from '../roles/run-role.ts';
import type { SourceOf } from '../options/secret-options.ts';
import type { Adjustment, Service } from '../roles/service.ts';
import type { Terminal } from '../terminal.ts';

export interface RoleDefinition<V extends RunValues> {
  /** A fresh command with its options, and nothing to do. */
  readonly define: () => Command;
  /** Looks for what goes against itself or cannot be used, and changes nothing. @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
  readonly check: (values: V, sourceOf: SourceOf) => void;
  /** What can be taken over while it runs. */
  readonly adjustment: (values: V) => Adjustment;
  readonly run: (values: V, means: RunMeans) => Promise<void>;
}

export interface RunMeans {
  readonly terminal: Terminal;
  readonly exit: (code: number) => void;
  readonly sourceOf: SourceOf;
  readonly reread: RoleRun<Service>['reread'];
}

/** What a command line has besides its arguments. */
export interface CommandContext {
  readonly terminal: Terminal;
  readonly exit: (code: number) => void;
  /** Those after the program's name. */
  readonly args: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
  /** Commands that can be configured by a file. */
  readonly configurable: () => readonly Command[];
  /** The part of a configuration file that a command was given. */
  readonly sectionOf: (command: Command) => ConfigSection | undefined;
}

/** Keys that are taken over without a restart. */
const TAKEN_OVER: ReadonlySet<string> = new Set(['log-level', 'access-log', 'allow-client', 'admin-token']);
/** Those that are where there was a value before and there is one now: a listener cannot begin or end to speak TLS. */
const RENEWED: ReadonlySet<string> = new Set(['tls-cert', 'tls-key']);

export function addRole<V extends RunValues>(
  program: Command,
  definition: RoleDefinition<V>,
  context: CommandContext,
): Command {
  const command = definition.define().copyInheritedSettings(program);
  program.addCommand(command);
  return command.action(async () => {
    const values = command.opts<V>();
    if (values.printConfig === true) return context.terminal.print(effectiveConfig(command));
    const { terminal, exit } = context;
    // A worker has its leader's values, which have been looked at.
    if (cluster.isPrimary) {
      await located(context.sectionOf(command), () => checkRole(definition, command));
      for (const line of unknownVariables(context.environment, commandsIn(program))) terminal.warn(`peerdist: ${line}`);
    }
    const sourceOf = sources(command);
    return definition.run(values, { terminal, exit, sourceOf, reread: () => reread(definition, command, context) });
  });
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for what a role cannot be run with */
export function checkRole<V extends RunValues>(definition: RoleDefinition<V>, command: Command): void {
  const values = command.opts<V>();
  checkRunValues(values);
  definition.check(values, sources(command));
}

/** Every command that there is. */
function commandsIn(command: Command): Command[] {
  return [command, ...command.commands.flatMap(commandsIn)];
}

function sources(command: Command): SourceOf {
  return (attribute) => command.getOptionValueSource(attribute);
}

async function reread<V extends RunValues>(
  definition: RoleDefinition<V>,
  running: Command,
  { args, environment, configurable }: CommandContext,
): ReturnType<RunMeans['reread']> {
  const command = definition
    .define()
    .exitOverride()
    .configureOutput({ outputError: () => {} });
  command.action(() => {}).parse(args.slice(1), { from: 'user' });
  const section = await configure(command, environment, configurable());
  const values = command.opts<V>();
  await located(section, () => checkRole(definition, command));
  const isChanged = ({ name, attribute }: Key): boolean => {
    const [now, before] = [command, running].map((each) => each.getOptionValue(attribute) as unknown);
    if (TAKEN_OVER.has(name) || (RENEWED.has(name) && now !== undefined && before !== undefined)) return false;
    return JSON.stringify(now) !== JSON.stringify(before);
  };
  const changed = keysOf(command)
    .filter(isChanged)
    .map(({ name }) => name);
  return { values, changed, adjustment: { ...definition.adjustment(values), adminToken: readAdminToken(values) } };
}
