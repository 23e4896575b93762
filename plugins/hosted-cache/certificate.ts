/** The certificate of the HTTPS listener that a hosted cache makes itself on its first start. */
import { X509Certificate } from 'node:crypto';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { createSecureContext } from 'node:tls';
import { type CertificateAndKey, makeServerCertificate } from '../../lib/crypto/certificates.ts';
import { makeDirectory } from '../../lib/stores/index.ts';

/** Days it is good for; a new one is made in its last month. Policy, not protocol. */
const VALID_DAYS = 3_650;
const RENEW_DAYS = 30;
const DAY_MS = 86_400_000;

export interface KeptCertificate {
  readonly identity: CertificateAndKey;
  /** Made just now. */
  readonly isNew: boolean;
  /** Where clients get it from; undefined where it could not be kept. */
  readonly file: string | undefined;
}

/**
 * The certificate kept in a directory, made where there is none that is good for these names and longer than a month. Clients have to trust
 * it: see README.
 *
 * @param directory made if need be; the key in it is readable by its owner only
 * @param names that clients know the machine by
 */
export async function keptCertificate(
  directory: string,
  names: readonly string[] = [hostname()],
): Promise<KeptCertificate> {
  const file = join(directory, 'hosted-cache-cert.pem');
  const keyFile = join(directory, 'hosted-cache-key.pem');
  const kept = readCertificate(file, keyFile, names);
  if (kept !== undefined) return { identity: kept, isNew: false, file };
  const identity = await makeServerCertificate([...names, 'localhost'], {
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + VALID_DAYS * DAY_MS),
  });
  try {
    makeDirectory(directory);
    replaceFile(keyFile, identity.key);
    replaceFile(file, identity.cert);
    return { identity, isNew: true, file };
  } catch {
    return { identity, isNew: true, file: undefined };
  }
}

/** Undefined where there is none, or none that can be used. */
function readCertificate(file: string, keyFile: string, names: readonly string[]): CertificateAndKey | undefined {
  try {
    const identity = { cert: readFileSync(file, 'utf8'), key: readFileSync(keyFile, 'utf8') };
    createSecureContext(identity);
    const certificate = new X509Certificate(identity.cert);
    const isLong = Date.parse(certificate.validTo) - Date.now() > RENEW_DAYS * DAY_MS;
    return isLong && names.every((name) => certificate.checkHost(name) !== undefined) ? identity : undefined;
  } catch {
    return undefined;
  }
}

/** Either all of it or what was there. */
function replaceFile(file: string, text: string): void {
  const part = `${file}.part`;
  rmSync(part, { force: true });
  writeFileSync(part, text, { mode: 0o600 });
  renameSync(part, file);
}
