/** Reads a configuration file, and says in one line, with file, line and key, what is wrong with it. */
import { readFileSync, statSync } from 'node:fs';
import { Ajv, type ErrorObject } from 'ajv';
import type { Command } from 'commander';
import { closestMatch } from 'leven';
import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml';
import { PeerDistError } from '../../../lib/errors.ts';
import { isSecret, printable, withoutPasswords } from './discretion.ts';
import { configSchema, expectedOf, keysOf } from './schema.ts';

/** Bytes of a configuration file: looking for keys that are there twice takes the square of it. */
const MAX_FILE_BYTES = 128 * 1024;
/** How much of a wrong value is repeated. */
const MAX_SHOWN_LENGTH = 60;

/** One command's part of a file. */
export interface ConfigSection {
  /** Values by key, as the file has them. */
  readonly values: ReadonlyMap<string, unknown>;
  /** An error about one of its keys, with file and line. */
  readonly error: (key: string, message: string) => PeerDistError;
}

/** A file that is right as far as its form goes. */
export interface ConfigFile {
  readonly name: string;
  /** Names of the commands that it has a section for. */
  readonly sections: readonly string[];
  readonly section: (command: string) => ConfigSection;
}

/**
 * Reads YAML or JSON and checks every section in it.
 *
 * @param commands those that may have a section
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`: one line about the first thing that is wrong
 */
export function readConfigFile(name: string, commands: readonly Command[]): ConfigFile {
  const lines = new LineCounter();
  const document = parseDocument(readText(name), { lineCounter: lines, prettyErrors: false, logLevel: 'error' });
  const at = (offset: number | undefined): string =>
    offset === undefined ? name : `${name}:${lines.linePos(offset).line}`;
  const [broken] = document.errors;
  if (broken !== undefined) throw wrong(`${at(broken.pos[0])}: ${printable(broken.message)}`);
  const value = plainValue(document, name) ?? {};
  // What is used once is not worth optimizing: that takes longer than all the rest.
  const ajv = new Ajv({ allErrors: false, strict: false, code: { optimize: false } });
  const validate = ajv.compile(configSchema(commands));
  const locate = (path: readonly string[]): string => at(offsetOf(document, path));
  if (!validate(value)) throw explain((validate.errors as ErrorObject[])[0] as ErrorObject, value, commands, locate);
  const sections = value as Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  return {
    name,
    sections: Object.keys(sections),
    section: (command) => ({
      values: new Map(Object.entries(sections[command] ?? {})),
      error: (key, message) => wrong(`${locate([command, key])}: ${command}.${key}: ${message}`),
    }),
  };
}

function readText(name: string): string {
  try {
    if (statSync(name).size <= MAX_FILE_BYTES) return readFileSync(name, 'utf8');
  } catch (error) {
    throw wrong(`${name}: cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
  throw wrong(`${name}: larger than any configuration file (${MAX_FILE_BYTES} bytes)`);
}

/** The document without YAML; a file of aliases that swells to gigabytes is refused. */
function plainValue(document: Document.Parsed, name: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 }) as unknown;
  } catch (error) {
    throw wrong(`${name}: ${printable((error as Error).message)}`);
  }
}

function explain(
  { instancePath, keyword, params }: ErrorObject,
  value: unknown,
  commands: readonly Command[],
  locate: (path: readonly string[]) => string,
): PeerDistError {
  const path = instancePath
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
  const [section, name] = path;
  if (keyword === 'additionalProperties') {
    const unknown = (params as { additionalProperty: string }).additionalProperty;
    const known = section === undefined ? commands.map((command) => command.name()) : keysIn(section, commands);
    if (section === undefined && commands.some((command) => keysIn(command.name(), commands).includes(unknown)))
      return wrong(`${locate([unknown])}: ${short(unknown)}: belongs into a section: ${known.join(', ')}`);
    if (unknown.startsWith('no-') && known.includes(unknown.slice(3)))
      return wrong(
        `${locate([...path, unknown])}: ${[...path, short(unknown)].join('.')}: write ${unknown.slice(3)}: false`,
      );
    const nearest = closestMatch(unknown, known, { maxDistance: Math.max(3, Math.ceil(unknown.length / 2)) });
    const what = section === undefined ? 'no such section' : 'no such key';
    const hint = nearest === undefined ? `; there are ${known.join(', ')}` : `; did you mean ${nearest}?`;
    return wrong(`${locate([...path, unknown])}: ${[...path, short(unknown)].join('.')}: ${what}${hint}`);
  }
  if (name === undefined) return wrong(`${locate(path)}: ${section ?? 'the file'}: expected keys with values`);
  const command = commands.find((each) => each.name() === section) as Command;
  const key = keysOf(command).find((each) => each.name === name);
  const given = path.reduce<unknown>((inner, part) => (inner as Record<string, unknown>)[part], value);
  const expected = key === undefined ? 'another value' : expectedOf(key);
  const found = isSecret(name) ? '' : `, not ${shown(given)}`;
  return wrong(`${locate(path)}: ${section}.${name}: expected ${expected}${found}`);
}

function keysIn(section: string, commands: readonly Command[]): string[] {
  const command = commands.find((each) => each.name() === section);
  return command === undefined ? [] : keysOf(command).map(({ name }) => name);
}

function shown(value: unknown): string {
  return short(withoutPasswords(JSON.stringify(value) ?? String(value)));
}

function short(text: string): string {
  return printable(text.length > MAX_SHOWN_LENGTH ? `${text.slice(0, MAX_SHOWN_LENGTH)}…` : text);
}

/** Where a key stands in the file, else its value, else what it would be in. */
function offsetOf(document: Document.Parsed, path: readonly string[]): number | undefined {
  for (let length = path.length; length > 0; length -= 1) {
    const parent = length === 1 ? document.contents : document.getIn(path.slice(0, length - 1), true);
    const key = path[length - 1];
    if (!isMap(parent)) continue;
    const pair = parent.items.find((each) => isScalar(each.key) && String(each.key.value) === key);
    if (pair !== undefined && isNode(pair.key)) return pair.key.range?.[0];
  }
  return document.contents?.range?.[0];
}

function wrong(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
