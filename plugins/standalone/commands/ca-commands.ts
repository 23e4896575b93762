/** `peerdist ca`: the certificate authority of a proxy that ends the TLS of listed hosts. */
import { hostname } from 'node:os';
import type { Command } from 'commander';
import { Issuer } from '../../../lib/crypto/certificates.ts';
import { printable } from '../config/discretion.ts';
import { createAuthority, type KeptAuthority, readAuthority } from '../kept/kept-authority.ts';
import { HOST_PATTERN } from '../options/intercept-options.ts';
import { flag, list, numberFrom, setting, TEXT } from '../options/settings.ts';
import type { Terminal } from '../terminal.ts';

interface CreateValues {
  readonly name: string;
  readonly days: number;
  readonly permit?: string[];
  readonly force?: true;
}

/** Days that an authority is good for. Policy. */
const DEFAULT_DAYS = 730;
const MAX_DAYS = 3_650;
const DAY_MS = 86_400_000;

export function addCaCommand(program: Command, { print }: Terminal): void {
  const ca = program.command('ca').description('the certificate authority for `branch --intercept`');
  ca.command('create')
    .description('make one, in a directory that only its owner can read')
    .argument('<dir>')
    .addOption(setting('--name <text>', 'what clients list it as', TEXT, `peerdist interception on ${hostname()}`))
    .addOption(
      setting('--days <number>', 'how long it is good for', numberFrom('--days', 1, MAX_DAYS), String(DEFAULT_DAYS)),
    )
    .addOption(
      list(
        '--permit <host>',
        'clients believe it for these hosts and names beneath them only (repeatable)',
        HOST_PATTERN,
      ),
    )
    .addOption(flag('--force', 'replace one that is there: clients have to trust the new one'))
    .action(async (directory: string, { name, days, permit, force }: CreateValues) => {
      const authority = await createAuthority(directory, { name, days, permit, force: force === true });
      print(await describe(authority));
    });
  ca.command('show')
    .description('its fingerprint, its dates, and how clients come to trust it')
    .argument('<dir>')
    .action(async (directory: string) => print(await describe(readAuthority(directory))));
}

async function describe({ certificate, identity, file }: KeptAuthority): Promise<string> {
  const { permitted } = await Issuer.open(identity);
  const left = Math.floor((Date.parse(certificate.validTo) - Date.now()) / DAY_MS);
  const hosts =
    permitted && [...(permitted.names ?? ['any name']), ...(permitted.addresses ?? ['any address'])].join(', ');
  return [
    `certificate  ${file}`,
    `subject      ${printable(certificate.subject.replaceAll('\n', ', '))}`,
    `SHA-256      ${certificate.fingerprint256}`,
    `valid        ${day(certificate.validFrom)} to ${day(certificate.validTo)}, ${left < 0 ? 'expired' : `${left} days left`}`,
    `vouches for  ${hosts === undefined ? 'any host: whoever has its key can pass for every site' : printable(hosts)}`,
    'To trust it:',
    `  curl       curl --cacert ${file} -x http://PROXY:3128 https://HOST/`,
    `  Debian     sudo cp ${file} /usr/local/share/ca-certificates/peerdist.crt && sudo update-ca-certificates`,
    '  Windows    certutil -addstore -f Root ca-cert.pem, as administrator; or by group policy, Trusted Root Certification Authorities',
    '  Firefox    Settings, Privacy & Security, View Certificates, Authorities, Import',
  ].join('\n');
}

function day(date: string): string {
  return new Date(date).toISOString().slice(0, 10);
}
