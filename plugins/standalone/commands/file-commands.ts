/** `peerdist hash` and `peerdist inspect`: content information of files, without a network. */
import { createReadStream, readFileSync, statSync, writeFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import type { ByteRange } from '../../../lib/bytes/index.ts';
import { nativeHashProvider } from '../../../lib/crypto/index.ts';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import {
  type ContentInformation,
  type ContentInformationVersion,
  decodeContentInformation,
  describeContentInformation,
  encodeContentInformation,
  formatDescription,
  type V1AlgorithmName,
} from '../../../lib/protocol/pccrc/index.ts';
import { InlineHashing } from '../../../lib/streams/index.ts';
import type { Terminal } from '../terminal.ts';
import { addSecretOptions, readSecret, type SecretOptions } from '../options/secret-options.ts';
import { parseByteRange, parseNumber } from '../options/units.ts';

interface HashValues extends SecretOptions {
  readonly contentInfo: ContentInformationVersion;
  readonly algorithm: V1AlgorithmName;
  readonly range?: ByteRange;
  readonly json?: true;
  readonly output?: string;
}

/** Bytes of a content information file that `inspect` reads. */
const MAX_INSPECT_BYTES = 1024 * 1024 * 1024;

export function addHashCommand(program: Command, terminal: Terminal): void {
  const command = program
    .command('hash')
    .description('content information of a file')
    .argument('<file>')
    .addOption(
      new Option('--content-info <version>', 'format, 1 or 2')
        .default(2, '2')
        .argParser(parseNumber('--content-info', 1, 2)),
    )
    .addOption(
      new Option('--algorithm <name>', 'hash of version 1').choices(['sha256', 'sha384', 'sha512']).default('sha256'),
    );
  addSecretOptions(command)
    .option('--range <first-last>', 'describe only these bytes, both inclusive', parseByteRange)
    .option('--json', 'print JSON')
    .option('-o, --output <file>', 'write the raw structure')
    .action(async (file: string, values: HashValues) => {
      const secret = readSecret(values, terminal.warn, (name) => command.getOptionValueSource(name));
      if (secret === undefined) {
        throw new PeerDistError(
          'ERR_PEERDIST_INVALID_OPTION',
          'hash needs a secret: --secret-file, --secret-hex, --secret-utf16, --secret or PEERDIST_SECRET',
        );
      }
      const hashing = new InlineHashing({
        provider: nativeHashProvider,
        secret,
        versions: [values.contentInfo],
        algorithm: values.algorithm,
      });
      try {
        for await (const chunk of createReadStream(file, { highWaterMark: 1024 * 1024 })) hashing.push(chunk as Buffer);
      } catch (error) {
        throw unreadable(file, error);
      }
      const [whole] = hashing.finish();
      const information = narrow(whole as ContentInformation, values.range);
      if (values.output !== undefined) write(values.output, encodeContentInformation(information));
      if (values.output === undefined || values.json === true) print(information, values.json === true, terminal);
    });
}

export function addInspectCommand(program: Command, terminal: Terminal): void {
  program
    .command('inspect')
    .description('describe a content information structure')
    .argument('<file>')
    .option('--json', 'print JSON')
    .action((file: string, values: { readonly json?: true }) => {
      let information: ContentInformation;
      try {
        if (statSync(file).size > MAX_INSPECT_BYTES)
          throw new PeerDistError('ERR_PEERDIST_LIMIT', 'larger than any content information');
        information = decodeContentInformation(readFileSync(file));
      } catch (error) {
        if (isPeerDistError(error))
          throw new PeerDistError(
            'ERR_PEERDIST_INVALID_OPTION',
            `${file} is not content information: ${error.message}`,
          );
        throw unreadable(file, error);
      }
      print(information, values.json === true, terminal);
    });
}

function narrow(information: ContentInformation, range: ByteRange | undefined): ContentInformation {
  if (range === undefined) return information;
  if (range.offset >= information.range.length) {
    throw new PeerDistError(
      'ERR_PEERDIST_INVALID_OPTION',
      `the range begins after the last of ${information.range.length} bytes`,
    );
  }
  return information.slice(range);
}

function print(information: ContentInformation, json: boolean, terminal: Terminal): void {
  const description = describeContentInformation(information, nativeHashProvider);
  terminal.print(json ? JSON.stringify(description, undefined, 2) : formatDescription(description));
}

function write(file: string, bytes: Uint8Array): void {
  try {
    writeFileSync(file, bytes);
  } catch (error) {
    throw new PeerDistError(
      'ERR_PEERDIST_INVALID_OPTION',
      `cannot write ${file}: ${(error as NodeJS.ErrnoException).code}`,
    );
  }
}

function unreadable(file: string, error: unknown): PeerDistError {
  return new PeerDistError(
    'ERR_PEERDIST_INVALID_OPTION',
    `cannot read ${file}: ${(error as NodeJS.ErrnoException).code ?? String(error)}`,
  );
}
