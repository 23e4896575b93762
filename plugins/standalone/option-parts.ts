/** Kinds of options that several commands have. */
import { Option } from 'commander';

/** An option whose help shows its default as one would type it; `none` is no limit. */
export function valued(flags: string, description: string, parse: (text: string) => unknown, text: string): Option {
  return new Option(flags, description).argParser(parse).default(text === 'none' ? Infinity : parse(text), text);
}

/** Gathers the values of an option that may be given again. */
export function collect(value: string, previous: string[] = []): string[] {
  return [...previous, value];
}
