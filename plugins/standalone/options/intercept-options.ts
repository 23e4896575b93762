/** The options of a forward proxy that ends the TLS of listed hosts. */
import type { Command } from 'commander';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import { LeafCertificates, parseHostPattern } from '../../http-proxy/index.ts';
import { checkCurrent, type KeptAuthority, readAuthority } from '../kept/kept-authority.ts';
import { checked, list, setting, TEXT } from './settings.ts';

export interface InterceptValues {
  readonly interceptCa?: string;
  readonly intercept?: string[];
}

/** Days before its authority's end that an administrator is told. Policy. */
const WARN_DAYS = 30;
const DAY_MS = 86_400_000;

export const HOST_PATTERN = checked('a host like packages.example.com, *.example.com or 192.0.2.1', parseHostPattern);

export function addInterceptOptions(command: Command): Command {
  return command
    .addOption(
      setting(
        '--intercept-ca <dir>',
        'certificate authority of `peerdist ca create`, for the hosts of --intercept',
        TEXT,
      ),
    )
    .addOption(
      list(
        '--intercept <host>',
        'read and cache HTTPS of this host, or *.domain: its clients have to trust the authority (repeatable)',
        HOST_PATTERN,
      ),
    );
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for what cannot be used, or others could use too */
export function checkIntercept(values: InterceptValues & { readonly origin?: string }): void {
  if (authorityOf(values) !== undefined && values.origin !== undefined)
    throw unusable('--intercept is for a forward proxy: leave out --origin');
}

/** What ends TLS; undefined where nothing does. @throws {@link PeerDistError} as {@link checkIntercept}, and for a host that its authority may not vouch for */
export async function openInterceptor(
  values: InterceptValues,
  warn: (line: string) => void,
): Promise<LeafCertificates | undefined> {
  const authority = authorityOf(values);
  if (authority === undefined) return undefined;
  const { certificate, file, identity } = authority;
  const left = Math.floor((Date.parse(certificate.validTo) - Date.now()) / DAY_MS);
  if (left < WARN_DAYS) warn(`${file} expires in ${left} days: make another in good time, clients have to trust it`);
  const interceptor = new LeafCertificates({ authority: identity, hosts: values.intercept ?? [] });
  await naming('--intercept', () => interceptor.prepare());
  return interceptor;
}

function authorityOf({ interceptCa, intercept }: InterceptValues): KeptAuthority | undefined {
  if (interceptCa === undefined && intercept === undefined) return undefined;
  if (intercept === undefined) throw unusable('--intercept-ca is of no use without --intercept HOST');
  if (interceptCa === undefined) throw unusable('--intercept needs --intercept-ca DIR, made by peerdist ca create');
  try {
    const authority = readAuthority(interceptCa);
    checkCurrent(authority, Date.now());
    return authority;
  } catch (error) {
    throw named('--intercept-ca', error);
  }
}

async function naming<T>(option: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw named(option, error);
  }
}

function named(option: string, error: unknown): unknown {
  return isPeerDistError(error) ? unusable(`${option}: ${error.message}`) : error;
}

function unusable(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
