/** Options that name PEM files. */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { PeerDistError } from '../../../lib/errors.ts';
import type { TlsIdentity } from '../../http-proxy/index.ts';

export interface TlsValues {
  readonly tlsCert?: string;
  readonly tlsKey?: string;
}

/** The certificate and key of a listener; undefined without them. @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
export function readTls({ tlsCert, tlsKey }: TlsValues): TlsIdentity | undefined {
  if (tlsCert === undefined && tlsKey === undefined) return undefined;
  if (tlsCert === undefined || tlsKey === undefined) {
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', '--tls-cert and --tls-key belong together');
  }
  return readIdentity(['--tls-cert', tlsCert], ['--tls-key', tlsKey]);
}

/** A certificate and its key, each with the option that names the file. @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
export function readIdentity(cert: readonly [string, string], key: readonly [string, string]): TlsIdentity {
  const identity = { cert: readText(...cert), key: readText(...key) };
  try {
    createSecureContext(identity);
  } catch (error) {
    throw unusable(`${cert[0]} and ${key[0]}`, error);
  }
  return identity;
}

/** Certificates of a PEM file. @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
export function readCertificates(option: string, file: string): string {
  const text = readText(option, file);
  try {
    void new X509Certificate(text);
  } catch (error) {
    throw unusable(option, error);
  }
  return text;
}

function unusable(option: string, error: unknown): PeerDistError {
  const reason = (error as Error).message.split('\n')[0];
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `${option}: not usable PEM (${reason})`);
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a file that cannot be read */
export function readText(option: string, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new PeerDistError(
      'ERR_PEERDIST_INVALID_OPTION',
      `${option}: cannot read ${file}: ${(error as NodeJS.ErrnoException).code}`,
    );
  }
}
