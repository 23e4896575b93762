/** `peerdist completion`: a script for a shell, which asks `peerdist complete` what may come next. */
import { type Command, Option } from 'commander';
import type { Terminal } from '../terminal.ts';

const SCRIPTS = {
  bash: `_peerdist() {
  local IFS=$'\\n'
  COMPREPLY=($(compgen -W "$(peerdist complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _peerdist peerdist`,
  zsh: `#compdef peerdist
_peerdist() {
  local -a found
  found=("\${(@f)$(peerdist complete -- "\${words[@]:1:$((CURRENT-1))}" 2>/dev/null)}")
  compadd -a found || _files
}
compdef _peerdist peerdist`,
  fish: `complete -c peerdist -f -a '(peerdist complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
complete -c peerdist -F`,
} as const;

export function addCompletionCommand(program: Command, { print }: Terminal): void {
  program
    .command('completion')
    .description('print a script that completes command lines')
    .argument('<shell>', 'bash, zsh or fish')
    .action((shell: string, _values: object, command: Command) => {
      if (!Object.hasOwn(SCRIPTS, shell)) command.error(`error: completion is for ${Object.keys(SCRIPTS).join(', ')}`);
      print(SCRIPTS[shell as keyof typeof SCRIPTS]);
    });
  program
    .command('complete', { hidden: true })
    .argument('[words...]')
    .action((words: string[]) => {
      const found = completions(program, words);
      if (found.length > 0) print(found.join('\n'));
    });
}

/**
 * What may stand in place of the last word.
 *
 * @param words after the program's name, the one being typed last
 */
export function completions(program: Command, words: readonly string[]): string[] {
  const typed = words.at(-1) ?? '';
  let command = program;
  for (const word of words.slice(0, -1)) command = visible(command).find((each) => each.name() === word) ?? command;
  const before = command.options.find(({ long, short }) => [long, short].includes(words.at(-2) ?? ''));
  const choices = before !== undefined && before.required ? choicesOf(before) : undefined;
  const candidates = choices ?? [
    ...visible(command).map((each) => each.name()),
    ...(typed.startsWith('-') ? command.options.map(({ long, short }) => long ?? short ?? '') : []),
  ];
  return candidates.filter((candidate) => candidate.startsWith(typed));
}

function visible(command: Command): Command[] {
  return command.createHelp().visibleCommands(command);
}

/** Words an option may have; none for one whose value is a file, a number and so on. */
function choicesOf(option: Option): readonly string[] {
  if (option.argChoices !== undefined) return option.argChoices;
  const schema = 'kind' in option ? (option.kind as { schema: { enum?: string[] } } | undefined)?.schema : undefined;
  return schema?.enum ?? [];
}
