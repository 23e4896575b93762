/** What a configuration file may say, as a JSON Schema: made of the options of the commands, so that there is one list of them. */
import type { Command, Option } from 'commander';
import { Setting, type ValueSchema } from '../options/settings.ts';

/** Options that say something about the command line itself. */
const OUTSIDE: ReadonlySet<string> = new Set(['config', 'print-config', 'help', 'version']);

/** One key of a section: the options that it stands for. */
export interface Key {
  /** As in the file: `max-cache`. */
  readonly name: string;
  /** As in the environment: `PEERDIST_MAX_CACHE`. */
  readonly variable: string;
  /** What Commander keeps the value under. */
  readonly attribute: string;
  /** The option with a value, or the one that switches on. */
  readonly option: Option | undefined;
  /** The one that switches off. */
  readonly negation: Option | undefined;
}

/** The keys that a command knows, in the order of its help. */
export function keysOf(command: Command): readonly Key[] {
  const keys = new Map<string, { option: Option | undefined; negation: Option | undefined }>();
  for (const option of command.options) {
    const name = nameOf(option);
    if (OUTSIDE.has(name)) continue;
    const pair = keys.get(name) ?? { option: undefined, negation: undefined };
    keys.set(name, option.negate ? { ...pair, negation: option } : { ...pair, option });
  }
  return [...keys].map(([name, { option, negation }]) => ({
    name,
    variable: `PEERDIST_${name.replaceAll('-', '_').toUpperCase()}`,
    attribute: ((option ?? negation) as Option).attributeName(),
    option,
    negation,
  }));
}

function nameOf(option: Option): string {
  return (option.long ?? option.short ?? '').replace(option.negate ? /^--no-/ : /^-+/, '');
}

/** True for a key that is on or off and has no value. */
export function isSwitch({ option }: Key): boolean {
  return option === undefined || (!option.required && !option.optional);
}

/** What a right value of a key is, after "expected". */
export function expectedOf(key: Key): string {
  if (isSwitch(key)) return 'true or false';
  const { kind, isRepeatable } = key.option as Setting;
  const one = kind?.expected ?? key.option?.argChoices?.join(', ') ?? 'text';
  const all = isRepeatable ? `${one}, or a list of such` : one;
  return key.negation === undefined ? all : `${all}, or false`;
}

/** The schema of a whole file: a section for each command. */
export function configSchema(commands: readonly Command[]): object {
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'peerdist configuration',
    description:
      'A section for each command; the keys are its options. Flags and PEERDIST_* variables go before what stands here.',
    type: 'object',
    additionalProperties: false,
    properties: Object.fromEntries(
      commands.map((command) => [
        command.name(),
        {
          description: command.description(),
          type: 'object',
          additionalProperties: false,
          properties: Object.fromEntries(keysOf(command).map((key) => [key.name, keySchema(key)])),
        },
      ]),
    ),
  };
}

function keySchema(key: Key): object {
  const { description } = (key.option ?? key.negation) as Option;
  if (isSwitch(key)) return { description, type: 'boolean' };
  const option = key.option as Option;
  const one: ValueSchema =
    option instanceof Setting && option.kind !== undefined
      ? option.kind.schema
      : option.argChoices === undefined
        ? { type: ['string', 'number'] }
        : { enum: option.argChoices };
  const forms: ValueSchema[] = [one];
  if (option instanceof Setting && option.isRepeatable)
    forms.push({ type: 'array', items: one, minItems: 1, maxItems: 1024 });
  if (key.negation !== undefined) forms.push({ const: false });
  const text = option.defaultValueDescription;
  const shown = text === undefined ? description : `${description} (default ${text})`;
  return forms.length === 1 ? { description: shown, ...one } : { description: shown, anyOf: forms };
}
