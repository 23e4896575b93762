import type { Command, Option } from 'commander';
import { parse } from 'yaml';
import { Setting } from '../options/settings.ts';
import { isSecret, withoutPasswords } from './discretion.ts';
import { type Key, keysOf } from './schema.ts';

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
    if (isSecret(key.name)) return `  # ${key.name}: not shown  (${SOURCES[source as string]})`;
    return `  ${key.name}: ${value}  # ${SOURCES[source as string]}`;
  });
  return [`${command.name()}:`, ...lines].join('\n');
}

function shownValue(key: Key, value: unknown): string | undefined {
  if (value === undefined) return undefined;
  // As it was understood: `007` is text to YAML.
  if (typeof value === 'boolean' || isWholeNumber(key)) return JSON.stringify(value);
  const option = key.option as Option;
  const given = option instanceof Setting ? option.given : undefined;
  // Of a default that is text, what is said in the help may be where it comes from.
  if (given === undefined)
    return scalar(typeof value === 'string' ? value : (option.defaultValueDescription ?? JSON.stringify(value)));
  return given.length === 1 ? scalar(given[0] as string) : `[${given.map(scalar).join(', ')}]`;
}

function isWholeNumber({ option }: Key): boolean {
  return option instanceof Setting && option.kind?.schema['type'] === 'integer';
}

/** Text as YAML reads it back. */
function scalar(text: string): string {
  const shown = withoutPasswords(text);
  return /^[\w./:+*$~-]+$/.test(shown) && isReadBack(shown) ? shown : JSON.stringify(shown);
}

/** Whether YAML takes text without quotes for that text, or for a number that is written so. */
function isReadBack(text: string): boolean {
  try {
    const read = parse(text) as unknown;
    return (typeof read === 'string' || typeof read === 'number') && String(read) === text;
  } catch {
    return false;
  }
}
