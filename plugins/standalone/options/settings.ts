/**
 * Options that can be given on the command line, in the environment and in a configuration file: each is declared once, with a kind that says
 * how its text is read, what it is called when it is wrong, and how an editor checks it.
 */
import { Option } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import { parseDuration, parseListen, parseNumber, parseSize } from './units.ts';

/** A JSON Schema, as far as one value goes. */
export type ValueSchema = Readonly<Record<string, unknown>>;

export interface Kind {
  /** What a right value is, after "expected". */
  readonly expected: string;
  readonly schema: ValueSchema;
  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` with a whole, clear line */
  readonly parse: (text: string) => unknown;
}

export const SIZE: Kind = {
  expected: 'a size like 64KiB or 2GB',
  schema: {
    anyOf: [
      { type: 'integer', minimum: 0 },
      { type: 'string', pattern: '^\\d+(\\.\\d+)?\\s*([kmg]?b?|[kmgt]ib)$' },
      { type: 'string', pattern: '^\\d+(\\.\\d+)?\\s*([KMG]?B?|[KMGT]iB)$' },
    ],
  },
  parse: parseSize,
};

/** A size, or `none` for no limit. */
export const LIMIT: Kind = {
  expected: 'a size like 64KiB or 2GB, or none',
  schema: { anyOf: [...(SIZE.schema['anyOf'] as object[]), { const: 'none' }] },
  parse: (text) => (text === 'none' ? Infinity : parseSize(text)),
};

export const DURATION: Kind = {
  expected: 'a time like 30s or 500ms',
  schema: {
    anyOf: [
      { type: 'number', minimum: 0 },
      { type: 'string', pattern: '^\\d+(\\.\\d+)?(ms|s|m|h|d)?$' },
    ],
  },
  parse: parseDuration,
};

export const ADDRESS: Kind = {
  expected: 'an address like 127.0.0.1:8080',
  schema: {
    anyOf: [
      { type: 'integer', minimum: 0, maximum: 65_535 },
      { type: 'string', pattern: '^((\\[[^\\]]+\\]|[^:]*):)?\\d{1,5}$' },
    ],
  },
  parse: parseListen,
};

export const TEXT: Kind = {
  expected: 'text',
  schema: { anyOf: [{ type: 'string', minLength: 1 }, { type: 'number' }] },
  parse: (text) => text,
};

/** What `parse` makes of a text, or throws at. */
export function kindOf(expected: string, parse: (text: string) => unknown): Kind {
  return { ...TEXT, expected, parse };
}

/** Text that `check` accepts or throws at. */
export function checked(expected: string, check: (text: string) => unknown): Kind {
  return kindOf(expected, (text) => {
    check(text);
    return text;
  });
}

export const WEB_URL: Kind = checked('an http or https URL', (text) => {
  if (!/^https?:\/\//i.test(text) || !URL.canParse(text))
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `not an http or https URL: ${text}`);
});

export function numberFrom(name: string, min: number, max: number): Kind {
  return {
    expected: `a whole number from ${min} to ${max}`,
    schema: { type: 'integer', minimum: min, maximum: max },
    parse: parseNumber(name, min, max),
  };
}

export function oneOf(name: string, choices: readonly string[]): Kind {
  const expected = `one of ${choices.join(', ')}`;
  return {
    expected,
    schema: { enum: choices },
    parse: (text) => {
      if (choices.includes(text)) return text;
      throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `${name} is ${expected}: ${text}`);
    },
  };
}

/** An option that may also stand in a configuration file. */
export class Setting extends Option {
  readonly kind: Kind | undefined;
  readonly isRepeatable: boolean;
  /** What it was last given as; undefined when nobody gave it. */
  given: string[] | undefined;

  constructor(flags: string, description: string, kind: Kind | undefined, isRepeatable: boolean) {
    super(flags, description);
    this.kind = kind;
    this.isRepeatable = isRepeatable;
    if (kind === undefined) return;
    this.argParser((text: string, previous: unknown) => {
      const value = kind.parse(text);
      const isFirst = !isRepeatable || this.given === undefined;
      this.given = isFirst ? [text] : [...(this.given as string[]), text];
      return isRepeatable ? [...(isFirst ? [] : (previous as unknown[])), value] : value;
    });
  }
}

/** An option with a value; `text` is its default as one would type it. */
export function setting(flags: string, description: string, kind: Kind, text?: string): Setting {
  const option = new Setting(flags, description, kind, false);
  return text === undefined ? option : option.default(kind.parse(text), text);
}

/** An option that may be given again. Its description has to say so. */
export function list(flags: string, description: string, kind: Kind): Setting {
  return new Setting(flags, description, kind, true);
}

/** An option without a value: `--name`, or `--no-name` that switches something off. */
export function flag(flags: string, description: string): Setting {
  return new Setting(flags, description, undefined, false);
}
