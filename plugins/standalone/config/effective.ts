import type { Command, Option } from 'commander';
import { Setting } from '../settings.ts';
import { type Key, keysOf } from './schema.ts';

/** Keys whose value nobody is to see. */
const SECRET: ReadonlySet<string> = new Set(['secret', 'secret-utf16', 'secret-hex']);
const SOURCES: Readonly<Record<string, string>> = {
  cli: 'flag',
  env: 'environment',
  config: 'file',
  default: 'default',
};

/** What applies to a command, as a configuration file that says so, each line with where it comes from. Secrets are left out. */
export function effectiveConfig(command: Command): string {
  const lines = keysOf(command).map((key) => {
    const source = command.getOptionValueSource(key.attribute);
    const value = source === undefined ? undefined : shownValue(key, command.getOptionValue(key.attribute));
    if (value === undefined) return `  # ${key.name}:`;
    if (SECRET.has(key.name)) return `  # ${key.name}: not shown  (${SOURCES[source as string]})`;
    return `  ${key.name}: ${value}  # ${SOURCES[source as string]}`;
  });
  return [`${command.name()}:`, ...lines].join('\n');
}

function shownValue(key: Key, value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'boolean') return String(value);
  const option = key.option as Option;
  const given = option instanceof Setting ? option.given : undefined;
  if (given === undefined) return scalar(option.defaultValueDescription ?? JSON.stringify(value));
  return given.length === 1 ? scalar(given[0] as string) : `[${given.map(scalar).join(', ')}]`;
}

/** Text as YAML reads it back; a pass word in a URL is not for others. */
function scalar(text: string): string {
  const plain = text.replace(/^(\w+:\/\/[^:@/]*:)[^@/]*@/, '$1***@');
  return /^[\w./:+*$~-]+$/.test(plain) &&
    !/^(?:true|false|yes|no|on|off|null|~)$/i.test(plain) &&
    !/:$|^[-:*]|: /.test(plain)
    ? plain
    : JSON.stringify(plain);
}
