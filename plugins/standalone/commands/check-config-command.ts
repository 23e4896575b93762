/** `peerdist check-config`: whether a configuration file can be used, without starting anything. */
import type { Command } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import { configurable, located } from '../config/apply.ts';
import { fillIn } from '../config/layers.ts';
import { configSchema } from '../config/schema.ts';
import { checkRole, type RoleDefinition } from './role-command.ts';
import type { RunValues } from '../options/role-options.ts';
import type { Terminal } from '../terminal.ts';

/** @param roles those that have more to check than the form of their options */
export function addCheckConfigCommand(
  program: Command,
  terminal: Terminal,
  roles: readonly RoleDefinition<never>[],
  environment: NodeJS.ProcessEnv,
): void {
  program
    .command('check-config')
    .description('check a configuration file without starting anything')
    .argument('[file]', 'default $PEERDIST_CONFIG')
    .option('--schema', 'print the JSON Schema of such files, for editors')
    .action(async (given: string | undefined, { schema }: { readonly schema?: true }) => {
      const commands = configurable(program);
      if (schema === true) return terminal.print(JSON.stringify(configSchema(commands), undefined, 2));
      const file = given ?? environment['PEERDIST_CONFIG'];
      if (file === undefined || file === '')
        throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', 'check-config needs a FILE, or PEERDIST_CONFIG');
      const { readConfigFile } = await import('../config/config-file.ts');
      const config = readConfigFile(file, commands);
      for (const name of config.sections) {
        const section = config.section(name);
        const definition = roles.find((role) => role.define().name() === name) as RoleDefinition<RunValues> | undefined;
        const command = definition?.define() ?? commands.find((each) => each.name() === name);
        if (command === undefined) continue;
        fillIn(command, {}, section);
        if (definition !== undefined) await located(section, () => checkRole(definition, command));
      }
      return terminal.print(
        config.sections.length === 0 ? `${file}: empty` : `${file}: all right for ${config.sections.join(', ')}`,
      );
    });
}
