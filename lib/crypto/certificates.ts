/**
 * Certificates that this package makes itself (RFC 5280): the one seam of the X.509 library, which is loaded when the first one is made,
 * because it takes longer than all the rest of a start.
 */
import { createPrivateKey, type KeyObject, randomBytes, type webcrypto, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { PeerDistError } from '../errors.ts';
import { decodePermitted, encodeConstraints, type PermittedNames } from './name-constraints.ts';

/** PEM. */
export interface CertificateAndKey {
  readonly cert: string;
  readonly key: string;
}

export interface Validity {
  readonly notBefore: Date;
  readonly notAfter: Date;
}

type X509 = typeof import('@peculiar/x509');

/** Object identifier of the name constraints extension (RFC 5280 4.2.1.10). */
const NAME_CONSTRAINTS = '2.5.29.30';
/** Characters of a common name (RFC 5280 appendix A, ub-common-name). */
const MAX_COMMON_NAME = 64;
const SERIAL_BYTES = 16;

const RSA = {
  name: 'RSASSA-PKCS1-v1_5',
  hash: 'SHA-256',
  publicExponent: new Uint8Array([1, 0, 1]),
  modulusLength: 2048,
};
const EC_P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
/** How a key of an authority signs. */
const SIGNING: Readonly<
  Record<string, { readonly name: string; readonly hash: string; readonly namedCurve?: string }>
> = {
  rsa: { name: RSA.name, hash: RSA.hash },
  prime256v1: EC_P256,
  secp384r1: { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' },
};

let loaded: Promise<X509> | undefined;

function load(): Promise<X509> {
  // Its container wants the polyfill first.
  return (loaded ??= import('reflect-metadata').then(() => import('@peculiar/x509')));
}

/**
 * A server certificate that is its own authority. RSA: Windows 7 does not know everything newer.
 *
 * @param names host names; the first one is its subject too
 */
export async function makeServerCertificate(
  names: readonly string[],
  { notBefore, notAfter }: Validity,
): Promise<CertificateAndKey> {
  const x509 = await load();
  const keys = await crypto.subtle.generateKey(RSA, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${names[0] ?? 'localhost'}`,
    notBefore,
    notAfter,
    keys,
    signingAlgorithm: RSA,
    extensions: [
      new x509.BasicConstraintsExtension(false),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns' as const, value }))),
    ],
  });
  return { cert: certificate.toString('pem'), key: await exportKey(x509, keys.privateKey) };
}

/**
 * A certificate authority, EC P-256, that signs certificates of servers and no other authority.
 *
 * @param name its common name, up to 64 characters
 * @param permitted names and addresses that it can vouch for; everything where there are none
 */
export async function makeAuthority(
  name: string,
  { notBefore, notAfter }: Validity,
  permitted?: PermittedNames,
): Promise<CertificateAndKey> {
  const x509 = await load();
  const keys = await crypto.subtle.generateKey(EC_P256, true, ['sign', 'verify']);
  const { keyCertSign, cRLSign } = x509.KeyUsageFlags;
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomSerial(),
    name: [{ CN: [name.slice(0, MAX_COMMON_NAME)] }],
    notBefore,
    notAfter,
    keys,
    signingAlgorithm: EC_P256,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(keyCertSign | cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ...(permitted === undefined ? [] : [new x509.Extension(NAME_CONSTRAINTS, true, encodeConstraints(permitted))]),
    ],
  });
  return { cert: certificate.toString('pem'), key: await exportKey(x509, keys.privateKey) };
}

/** Makes certificates of servers in the name of an authority, all for the same key. */
export class Issuer {
  /** PEM; of every certificate that it makes. */
  readonly key: string;
  readonly #x509: X509;
  readonly #authority: InstanceType<X509['X509Certificate']>;
  readonly #chain: string;
  readonly #signingKey: webcrypto.CryptoKey;
  readonly #signing: webcrypto.Algorithm;
  readonly #keys: webcrypto.CryptoKeyPair;

  private constructor(
    x509: X509,
    authority: CertificateAndKey,
    signing: { readonly key: webcrypto.CryptoKey; readonly algorithm: webcrypto.Algorithm },
    own: { readonly keys: webcrypto.CryptoKeyPair; readonly pem: string },
  ) {
    this.#x509 = x509;
    this.#authority = new x509.X509Certificate(authority.cert);
    // One that somebody else vouches for comes along; one that is a root is at the client already.
    this.#chain = this.#authority.subject === this.#authority.issuer ? '' : `\n${authority.cert}`;
    this.#signingKey = signing.key;
    this.#signing = signing.algorithm;
    this.#keys = own.keys;
    this.key = own.pem;
  }

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` as {@link signingAlgorithm} does */
  static async open(authority: CertificateAndKey): Promise<Issuer> {
    const x509 = await load();
    const privateKey = createPrivateKey(authority.key);
    const algorithm = signingAlgorithm(privateKey);
    const der = privateKey.export({ type: 'pkcs8', format: 'der' });
    const key = await crypto.subtle.importKey('pkcs8', der, algorithm, false, ['sign']);
    const keys = await crypto.subtle.generateKey(EC_P256, true, ['sign', 'verify']);
    return new Issuer(x509, authority, { key, algorithm }, { keys, pem: await exportKey(x509, keys.privateKey) });
  }

  /** What it can vouch for; undefined for everything. */
  get permitted(): PermittedNames | undefined {
    const extension = this.#authority.getExtension(NAME_CONSTRAINTS);
    return extension === null ? undefined : decodePermitted(new Uint8Array(extension.value));
  }

  /** @returns the certificate of a host name or an address, PEM, with those that lead to a root behind it */
  async issue(host: string, { notBefore, notAfter }: Validity): Promise<string> {
    const x509 = this.#x509;
    const { digitalSignature } = x509.KeyUsageFlags;
    const identifier = this.#authority.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId;
    // Some take a common name for a host name, also one that is an address.
    const isNamed = isIP(host) === 0 && host.length <= MAX_COMMON_NAME;
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: randomSerial(),
      subject: isNamed ? [{ CN: [host] }] : [],
      issuer: this.#authority.subjectName,
      notBefore,
      notAfter,
      publicKey: this.#keys.publicKey,
      signingKey: this.#signingKey,
      signingAlgorithm: this.#signing,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
        // RFC 5280 4.2.1.6: critical where the subject is empty.
        new x509.SubjectAlternativeNameExtension([{ type: isIP(host) === 0 ? 'dns' : 'ip', value: host }], !isNamed),
        ...(identifier === undefined ? [] : [new x509.AuthorityKeyIdentifierExtension(identifier)]),
      ],
    });
    return `${certificate.toString('pem')}${this.#chain}\n`;
  }
}

/**
 * Whether a certificate and a key can be an authority together, now.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` that says why not, in words that follow the name of where they come from
 */
export function checkAuthority({ cert, key }: CertificateAndKey): X509Certificate {
  let certificate: X509Certificate;
  let privateKey: KeyObject;
  try {
    certificate = new X509Certificate(cert);
    privateKey = createPrivateKey(key);
  } catch (error) {
    throw unusable(`not usable PEM (${(error as Error).message.split('\n')[0]})`);
  }
  if (!certificate.ca) throw unusable('the certificate is none of an authority');
  if (!certificate.checkPrivateKey(privateKey)) throw unusable('certificate and key do not belong together');
  signingAlgorithm(privateKey);
  return certificate;
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for another key than RSA, EC P-256 or P-384 */
function signingAlgorithm({
  asymmetricKeyType,
  asymmetricKeyDetails,
}: KeyObject): webcrypto.Algorithm & { readonly hash: string } {
  const signing = SIGNING[asymmetricKeyDetails?.namedCurve ?? asymmetricKeyType ?? ''];
  if (signing === undefined) throw unusable('the key is neither RSA nor EC P-256 or P-384');
  return signing;
}

/** Positive, as RFC 5280 4.1.2.2 wants it: hexadecimal. */
function randomSerial(): string {
  const serial = randomBytes(SERIAL_BYTES);
  serial[0] = ((serial[0] as number) & 0x7f) | 0x40;
  return serial.toString('hex');
}

async function exportKey(x509: X509, key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await crypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY');
}

function unusable(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
