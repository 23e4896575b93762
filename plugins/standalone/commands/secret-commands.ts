/** `peerdist secret`: takes the server secret that a state directory keeps from machine to machine, and changes it. */
import { closeSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import { decodeSecretFile, encodeSecretFile, MAX_SECRET_FILE_BYTES } from '../../../lib/protocol/pccrc/index.ts';
import { existingSecret, replaceSecret, rotateSecret } from '../kept/kept-secret.ts';
import { stateOption } from '../options/store-options.ts';
import type { Terminal } from '../terminal.ts';

interface RotateValues {
  readonly stateDir: string;
}

interface CarryValues extends RotateValues {
  readonly passphraseFile?: string;
}

/** Bytes of a pass phrase file. */
const MAX_PASSPHRASE_BYTES = 64 * 1024;

export function addSecretCommand(program: Command, { print }: Terminal): void {
  const secret = program.command('secret').description('the server secret of a state directory');
  addCarryCommand(
    'export',
    'write it to a file as `netsh branchcache exportkey` does',
    (file, passphrase, stateDir) => {
      const { current } = existingSecret(stateDir);
      writeNew(
        file,
        naming(file, () => encodeSecretFile(current, passphrase)),
      );
      print(`${file}: server secret exported`);
    },
  );
  addCarryCommand(
    'import',
    'take it from a file of `peerdist secret export` or `netsh branchcache exportkey`',
    (file, passphrase, stateDir) => {
      const bytes = readAtMost(file, MAX_SECRET_FILE_BYTES);
      const { previous, isNew } = replaceSecret(
        stateDir,
        naming(file, () => decodeSecretFile(bytes, passphrase)),
      );
      if (!isNew) print('it is the server secret already: nothing has changed');
      else if (previous.length === 0)
        print('took the server secret, the first one here; start or restart the proxies that use it');
      else printChange('replaced the server secret');
    },
  );
  secret
    .command('rotate')
    .description('replace it with 32 random bytes')
    .addOption(stateOption('where the server secret is kept'))
    .action(({ stateDir }: RotateValues) => {
      rotateSecret(stateDir);
      printChange('made a new server secret');
    });

  function addCarryCommand(
    name: 'export' | 'import',
    description: string,
    act: (file: string, passphrase: string, stateDir: string) => void,
  ): void {
    secret
      .command(name)
      .description(description)
      .argument('<file>')
      .option('--passphrase-file <file>', 'the pass phrase: UTF-8 text, a newline at its end left out')
      .addOption(stateOption('where the server secret is kept'))
      .action((file: string, { passphraseFile, stateDir }: CarryValues) => {
        // Not Commander's requiredOption, which would complain before it has noticed a mistyped one.
        if (passphraseFile === undefined) throw unusable(`secret ${name} needs --passphrase-file FILE`);
        act(file, readPassphrase(passphraseFile), stateDir);
      });
  }

  function printChange(what: string): void {
    print(`${what}: segment IDs change, so branches see all content as new`);
    print(
      'what was hashed before is answered with the old one until it is hashed again; restart the proxies that use it',
    );
  }
}

function readPassphrase(file: string): string {
  const bytes = readAtMost(file, MAX_PASSPHRASE_BYTES, '--passphrase-file: ');
  let text: string;
  try {
    // It leaves a byte order mark out.
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw unusable(`--passphrase-file: ${file} is not UTF-8 text`);
  }
  const passphrase = text.replace(/\r?\n$/, '');
  if (passphrase === '') throw unusable(`--passphrase-file: ${file} is empty`);
  return passphrase;
}

/** A file, or a pipe, which says nothing of its size. */
function readAtMost(file: string, maxBytes: number, context = ''): Uint8Array {
  const bytes = Buffer.alloc(maxBytes + 1);
  let length = 0;
  try {
    const descriptor = openSync(file, 'r');
    try {
      for (let count = -1; count !== 0 && length < bytes.byteLength; length += count)
        count = readSync(descriptor, bytes, length, bytes.byteLength - length, null);
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    throw unusable(`${context}cannot read ${file}: ${codeOf(error)}`);
  }
  if (length > maxBytes) throw unusable(`${context}${file} is too large`);
  return bytes.subarray(0, length);
}

/** Writes what was not there before, for its owner only. */
function writeNew(file: string, bytes: Uint8Array): void {
  let descriptor: number;
  try {
    descriptor = openSync(file, 'wx', 0o600);
  } catch (error) {
    if (codeOf(error) === 'EEXIST') throw unusable(`${file} exists already; give another name or remove it`);
    throw unusable(`cannot write ${file}: ${codeOf(error)}`);
  }
  try {
    writeFileSync(descriptor, bytes);
  } catch (error) {
    rmSync(file, { force: true });
    throw unusable(`cannot write ${file}: ${codeOf(error)}`);
  } finally {
    closeSync(descriptor);
  }
}

function naming<T>(file: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (isPeerDistError(error)) throw unusable(`${file}: ${error.message}`);
    throw error;
  }
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}

function unusable(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
