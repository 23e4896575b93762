/** Where the values of a command come from: flags, else the environment, else a configuration file, else defaults. */
import type { Command, Option } from 'commander';
import { closestMatch } from 'leven';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import type { ConfigSection } from './config-file.ts';
import { isSecret, printable, withoutPasswords } from './discretion.ts';
import { expectedOf, isSwitch, type Key, keysOf } from './schema.ts';
import { Setting } from '../options/settings.ts';

/** Variables that begin like options and are none. */
const OTHER_VARIABLES: ReadonlySet<string> = new Set(['PEERDIST_CONFIG']);
const PREFIX = 'PEERDIST_';

/**
 * Gives a command that has been parsed the values that no flag has set.
 *
 * @param section of a configuration file
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a value that is wrong
 */
export function fillIn(command: Command, environment: NodeJS.ProcessEnv, section?: ConfigSection): void {
  for (const key of keysOf(command)) {
    const source = command.getOptionValueSource(key.attribute);
    if (source === 'cli') continue;
    const variable = environment[key.variable];
    if (variable !== undefined && variable !== '') {
      const wrong = (message: string): PeerDistError =>
        new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `${key.variable}: ${message}`);
      command.setOptionValueWithSource(key.attribute, read(key, fromVariable(key, variable), wrong), 'env');
    } else if (section?.values.has(key.name) === true) {
      const wrong = (message: string): PeerDistError => section.error(key.name, message);
      command.setOptionValueWithSource(key.attribute, read(key, section.values.get(key.name), wrong), 'config');
    }
  }
}

/** Variables that are no option of any of these commands, each with what it may have been meant for. */
export function unknownVariables(environment: NodeJS.ProcessEnv, commands: readonly Command[]): string[] {
  const known = new Set([...OTHER_VARIABLES, ...commands.flatMap(keysOf).map(({ variable }) => variable)]);
  return Object.keys(environment)
    .filter((name) => name.startsWith(PREFIX) && !known.has(name))
    .map((name) => {
      const nearest = closestMatch(name, [...known], { maxDistance: 4 });
      return `${printable(name)} is no option${nearest === undefined ? '' : `; did you mean ${nearest}?`}`;
    });
}

/** A variable has text only: lists have commas, and what can be switched off has a word for it. */
function fromVariable(key: Key, text: string): unknown {
  if (isSwitch(key) || (key.negation !== undefined && /^(?:false|no|off)$/i.test(text))) {
    if (/^(?:true|yes|on|1)$/i.test(text)) return true;
    if (/^(?:false|no|off|0)$/i.test(text)) return false;
    return text;
  }
  return key.option instanceof Setting && key.option.isRepeatable ? text.split(',').map((each) => each.trim()) : text;
}

function read(key: Key, value: unknown, wrong: (message: string) => PeerDistError): unknown {
  if (value === false && key.negation !== undefined) return false;
  if (isSwitch(key)) {
    if (typeof value !== 'boolean') throw wrong(`expected true or false, not ${printable(String(value))}`);
    // Off is what a switch is that nobody has set; what a negation switches off is on.
    return value || key.negation !== undefined ? value : undefined;
  }
  const { option } = key;
  if (option instanceof Setting) option.given = undefined;
  const texts = (Array.isArray(value) ? value : [value]).map(String);
  return texts.reduce<unknown>((previous, text) => parse(key, option as Option, text, previous, wrong), undefined);
}

function parse(
  key: Key,
  option: Option,
  text: string,
  previous: unknown,
  wrong: (message: string) => PeerDistError,
): unknown {
  try {
    return option.parseArg === undefined ? text : option.parseArg(text, previous);
  } catch (error) {
    if (option instanceof Setting) {
      const found = isSecret(key.name) ? '' : `, not ${printable(withoutPasswords(text))}`;
      throw wrong(`expected ${expectedOf(key)}${found}`);
    }
    throw isPeerDistError(error) ? wrong(error.message) : wrong((error as Error).message);
  }
}
