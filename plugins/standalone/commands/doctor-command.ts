/** `peerdist doctor`: what keeps a role from working on this machine, and what to do about it. */
import type { Command } from 'commander';
import { configure } from '../config/apply.ts';
import { examine } from '../doctor/examine.ts';
import type { Finding } from '../doctor/finding.ts';
import { type CommandContext, type RoleDefinition } from './role-command.ts';

const MARKS: Readonly<Record<Finding['verdict'], string>> = {
  ok: 'ok  ',
  warning: 'WARN',
  bad: 'BAD ',
  skipped: '–   ',
};

export function addDoctorCommand(
  program: Command,
  roles: readonly RoleDefinition<never>[],
  { terminal, exit, environment, configurable }: CommandContext,
): void {
  const doctor = program
    .command('doctor')
    .description('look for what keeps a role from working on this machine, and say what to do about it');
  for (const definition of roles) {
    const command = definition.define().copyInheritedSettings(program);
    const name = command.name();
    doctor.addCommand(command.description(`with the options of \`peerdist ${name}\``).option('--json', 'print JSON'));
    command.action(async () => {
      const { json } = command.opts<{ json?: true }>();
      const section = await configure(command, environment, configurable());
      const findings: Finding[] = [];
      for await (const finding of examine(definition, command, section)) {
        findings.push(finding);
        if (json !== true) terminal.print(text(finding));
      }
      const counts = (kind: Finding['verdict']): number => findings.filter(({ verdict }) => verdict === kind).length;
      if (json === true) terminal.print(JSON.stringify(findings, undefined, 2));
      else terminal.print(conclusion(name, counts('bad'), counts('warning')));
      exit(counts('bad') > 0 ? 1 : 0);
    });
  }
}

function text({ what, verdict, says, advice }: Finding): string {
  const hint = advice === undefined ? '' : `\n${' '.repeat(5)}→ ${advice}`;
  return `${MARKS[verdict]} ${what}: ${says}${hint}`;
}

function conclusion(role: string, faults: number, warnings: number): string {
  if (faults > 0) return `${faults} thing${faults === 1 ? '' : 's'} to put right before \`peerdist ${role}\` can work.`;
  return warnings > 0 ? `\`peerdist ${role}\` can work; see the warnings.` : `\`peerdist ${role}\` can work.`;
}
