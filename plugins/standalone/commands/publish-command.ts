/** `peerdist publish`: hashes files ahead of the first request, into the store of a head office proxy. */
import { existsSync, type Stats, statSync } from 'node:fs';
import { basename } from 'node:path';
import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import { nativeHashProvider } from '../../../lib/crypto/index.ts';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import { fieldValue } from '../../../lib/http/index.ts';
import { Kit, ProxyRequest, type ProxyResponse } from '../../../lib/kit/index.ts';
import { PeerDist } from '../../../lib/peerdist/index.ts';
import type { V1AlgorithmName } from '../../../lib/protocol/pccrc/index.ts';
import {
  formatPeerDist,
  formatPeerDistEx,
  PEERDIST_EX_HEADER,
  PEERDIST_HEADER,
} from '../../../lib/protocol/pccrtp/index.ts';
import { ownerOf } from '../../../lib/stores/index.ts';
import { createContentServer } from '../../content-server/index.ts';
import { parseOrigin } from '../../http-proxy/index.ts';
import { compareWithOrigin, fileOrigin } from './file-origin.ts';
import { keptSecret } from '../kept/kept-secret.ts';
import { ownership } from '../kept/kept-stores.ts';
import { ProgressBar } from '../progress.ts';
import { PUBLISHER } from '../roles/roles.ts';
import { addSecretOptions, readSecret, type SecretOptions } from '../options/secret-options.ts';
import { checked, oneOf, setting, SIZE, TEXT } from '../options/settings.ts';
import { stateOption, STORE, storeOptions, type StoreValues } from '../options/store-options.ts';
import { openStores, type RoleStores, storeDirectories } from '../roles/stores.ts';
import type { Terminal } from '../terminal.ts';
import { readCertificates } from '../options/tls-options.ts';
import { formatBytes } from '../options/units.ts';

interface PublishValues extends SecretOptions, Pick<StoreValues, 'store' | 'stateDir'> {
  readonly url?: string;
  readonly algorithm: V1AlgorithmName;
  readonly minSize: number;
  readonly originCa?: string;
}

/** Where one file stands at the origin. */
interface Place {
  readonly scheme: 'http' | 'https';
  readonly authority: string;
  /** Path and query, as typed. */
  readonly target: string;
}

const FIELDS = {
  'accept-encoding': 'peerdist',
  [PEERDIST_HEADER]: formatPeerDist({ version: { major: 1, minor: 1 } }),
};
/** A client that comes back for the hashes of what it has just had. */
const COME_BACK = { ...FIELDS, [PEERDIST_EX_HEADER]: formatPeerDistEx(2, { hashRequest: true }) };

export function addPublishCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  const command = program
    .command('publish')
    .description('hash files ahead of the first request, into the store of `peerdist reverse`')
    .argument('<file...>', 'the same bytes as the origin sends')
    .addOption(
      setting('--url <url>', 'where the origin has the file; several files: their directory, ending in /', WHERE),
    )
    .addOption(setting('--store <where>', 'the store of `peerdist reverse`: disk, or redis://host:port', STORE, 'disk'))
    .addOption(stateOption('the state directory of `peerdist reverse`'))
    .addOption(
      setting(
        '--algorithm <name>',
        'as for `peerdist reverse`',
        oneOf('--algorithm', ['sha256', 'sha384', 'sha512']),
        'sha256',
      ),
    )
    .addOption(setting('--min-size <size>', 'as for `peerdist reverse`', SIZE, '64KiB'))
    .addOption(setting('--origin-ca <file>', 'certificate authorities of an https origin, PEM', TEXT));
  addSecretOptions(command).action(async (files: string[], values: PublishValues) => {
    const { url } = values;
    if (url === undefined) throw unusable('publish needs --url URL');
    if (files.length > 1 && !url.endsWith('/')) throw unusable('--url: several files want a URL that ends in /');
    const publisher = await Publisher.open(values, (name) => command.getOptionValueSource(name), terminal.warn);
    const bar = new ProgressBar('{step} {bar} {percentage}%  {eta_formatted} left');
    try {
      for (const file of files) {
        try {
          const place = placeOf(url.endsWith('/') ? url + encodeURIComponent(basename(file)) : url);
          const isNew = await publisher.publish(file, place, (done, total) => bar.show(file, done, total));
          bar.stop();
          terminal.print(`${file}: ${isNew ? 'published' : 'was published before'}`);
        } catch (error) {
          bar.stop();
          // With a code it is of the file system, in the middle of the file.
          if (!isPeerDistError(error) && (error as NodeJS.ErrnoException).code === undefined) throw error;
          terminal.warn(`peerdist: ${file}: ${(error as Error).message}`);
          exit(1);
        }
      }
    } finally {
      await publisher.close();
    }
  });
}

const WHERE = checked('a URL at the origin like http://127.0.0.1:80/big.iso', placeOf);

function placeOf(url: string): Place {
  // What has to be encoded is for the user to encode: the key has to be what clients ask for.
  const match = /^(https?:\/\/[^/?#]+)(\/[\x21\x22\x24-\x7e]*)$/i.exec(url);
  if (match === null) throw unusable(`not a URL like http://127.0.0.1:80/big.iso: ${url}`);
  return { ...parseOrigin(match[1] as string), target: match[2] as string };
}

/** The head office side without a network behind it: the origin is asked for its heads, and bodies are read from files. */
class Publisher {
  readonly #stores: RoleStores;
  readonly #peerdist: PeerDist;
  readonly #minBytes: number;
  readonly #ca: string | undefined;
  readonly #giveBack: () => void;

  private constructor(stores: RoleStores, peerdist: PeerDist, values: PublishValues, giveBack: () => void) {
    this.#stores = stores;
    this.#peerdist = peerdist;
    this.#minBytes = values.minSize;
    this.#ca = values.originCa === undefined ? undefined : readCertificates('--origin-ca', values.originCa);
    this.#giveBack = giveBack;
  }

  static async open(
    values: PublishValues,
    sourceOf: (name: string) => string | undefined,
    warn: (line: string) => void,
  ): Promise<Publisher> {
    if (values.store === 'memory')
      throw unusable('--store memory is the memory of a process: publish into disk or Redis');
    const given = readSecret(values, warn, sourceOf);
    const kept = given === undefined ? keptSecret(values.stateDir) : undefined;
    const secret = given ?? (kept as NonNullable<typeof kept>).current;
    const { records: directory } = storeDirectories(values.stateDir, 'reverse');
    const giveBack = existsSync(directory) ? ownership(directory) : () => {};
    // It never makes room here: that is the proxy's to decide.
    const limits = { maxCache: Number.MAX_SAFE_INTEGER, memory: 16 * 1024 * 1024, workers: 1 };
    const options = storeOptions({ ...values, ...limits }, 'reverse', () => [secret, ...(kept?.previous ?? [])]);
    const isGuest = options.kind === 'disk' && ownerOf(directory) !== undefined;
    const stores = await openStores(options, { role: 'reverse', observer: () => {}, warn, isGuest });
    const peerdist = await PeerDist.open({
      identity: PUBLISHER,
      serverSecret: secret,
      algorithm: values.algorithm,
      components: { hashProvider: nativeHashProvider, contentInformationStore: stores.contentInformation },
    });
    return new Publisher(stores, peerdist, values, giveBack);
  }

  /**
   * @returns false when the same content was published before
   * @throws {@link PeerDistError} when the origin has something else, or what it has cannot be published
   */
  async publish(file: string, place: Place, onBytes: (bytes: number, total: number) => void): Promise<boolean> {
    const length = sizeOf(file);
    if (length < this.#minBytes)
      throw new PeerDistError(
        'ERR_PEERDIST_LIMIT',
        `smaller than ${formatBytes(this.#minBytes)}: such files are not published`,
      );
    await compareWithOrigin(requestTo(place, {}), file, length, this.#ca);
    const kit = new Kit({
      plugins: [
        createContentServer({ peerdist: this.#peerdist, minBytes: this.#minBytes, records: this.#stores.records }),
      ],
    });
    const through = kit.through(fileOrigin(file, this.#ca));
    await kit.start();
    try {
      const first = await through(requestTo(place, FIELDS));
      if (isCoded(first)) return false;
      await pipeline(
        first.stream(),
        counter((bytes) => onBytes(bytes, length)),
      );
      const second = await through(requestTo(place, COME_BACK));
      second.discard();
      if (isCoded(second)) return true;
    } finally {
      await kit.stop();
    }
    throw new PeerDistError(
      'ERR_PEERDIST_NOT_FOUND',
      'the origin sends it in a way that must not be published: without ETag and Last-Modified, encoded, or no-store',
    );
  }

  async close(): Promise<void> {
    await this.#peerdist.close();
    await this.#stores.close();
    this.#giveBack();
  }
}

/** Where bytes end. Not a loop over them: that would destroy the stream when they end, before all is hashed. */
function counter(onBytes: (bytes: number) => void): Writable {
  let bytes = 0;
  return new Writable({
    write(chunk: Uint8Array, _encoding, callback) {
      onBytes((bytes += chunk.byteLength));
      callback();
    },
  });
}

function requestTo(place: Place, headers: Readonly<Record<string, string>>): ProxyRequest {
  const client = { address: '127.0.0.1', httpVersion: '1.1' };
  return new ProxyRequest({
    method: 'GET',
    ...place,
    headers,
    body: null,
    client,
    signal: new AbortController().signal,
  });
}

function isCoded({ headers }: ProxyResponse): boolean {
  return fieldValue(headers, 'content-encoding') === 'peerdist';
}

function sizeOf(file: string): number {
  let found: Stats;
  try {
    found = statSync(file);
  } catch (error) {
    throw unusable(`cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
  if (found.isFile()) return found.size;
  throw unusable('not a file');
}

function unusable(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
