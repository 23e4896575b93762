/** Who has to be reached: the origin, hosted caches, peers; and what the origin's clock says of ours. */
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { canName, fieldValue, validatorsOf } from '../../../lib/http/index.ts';
import { type ListenAddress, formatListen } from '../options/units.ts';
import { bad, type Finding, ok, warning } from './finding.ts';

const TIMEOUT_MS = 5_000;
/** Clocks that differ by more disagree about what is fresh. Policy. */
const MAX_SKEW_MS = 60_000;

/** The origin, and the clock by it. */
export async function checkOrigin(origin: string, ca: string | undefined): Promise<Finding[]> {
  const what = 'origin';
  let response: IncomingMessage;
  const askedAt = Date.now();
  try {
    response = await head(origin, ca);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return [bad(what, `${origin} cannot be reached: ${code ?? message}`, adviceFor(code))];
  }
  const { statusCode = 0, headers } = response;
  const findings = [originFinding(origin, statusCode, canName(validatorsOf(headers)))];
  const date = fieldValue(headers, 'date');
  if (date !== undefined) findings.push(clockFinding((askedAt + Date.now()) / 2, Date.parse(date)));
  return findings;
}

function originFinding(origin: string, status: number, hasValidator: boolean): Finding {
  const what = 'origin';
  if (status >= 500) return bad(what, `${origin} answers ${status}`, 'look at the log of the web server');
  if (status === 200 && !hasValidator)
    return warning(
      what,
      `${origin}/ answers, without ETag and Last-Modified`,
      'only answers that have one of them are published; if what clients download has them (curl -I), all is well',
    );
  return ok(what, `${origin} answers ${status}`);
}

function clockFinding(now: number, theirs: number): Finding {
  const what = 'clock';
  const skew = now - theirs;
  if (!(Math.abs(skew) > MAX_SKEW_MS)) return ok(what, 'agrees with that of the origin');
  const seconds = Math.round(Math.abs(skew) / 1000);
  return bad(
    what,
    `${seconds} seconds ${skew > 0 ? 'ahead of' : 'behind'} the origin's`,
    'answers are thought fresh for too long or too short: switch on time synchronisation (timedatectl set-ntp true) on both machines',
  );
}

function adviceFor(code: string | undefined): string {
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return 'the name is not known: is it spelled right, does DNS work on this machine?';
  if (code === 'ECONNREFUSED') return 'nothing listens there: is the web server running, and on this port?';
  if (code?.includes('CERT') === true || code?.includes('SIGNED') === true)
    return 'its certificate is not trusted: give the authority by --origin-ca, or correct the name';
  return 'a firewall or a route may be in between: try curl -v from this machine';
}

function head(origin: string, ca: string | undefined): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const send = origin.startsWith('https:') ? httpsRequest : httpRequest;
    const asked = send(origin, {
      method: 'HEAD',
      timeout: TIMEOUT_MS,
      agent: false,
      ...(ca === undefined ? {} : { ca }),
    });
    asked.once('response', (response) => {
      response.resume();
      resolve(response);
    });
    asked.once('timeout', () => asked.destroy(Object.assign(new Error('no answer in time'), { code: 'ETIMEDOUT' })));
    asked.once('error', reject);
    asked.end();
  });
}

/** A neighbour known by configuration. */
export async function checkNeighbour(what: string, address: ListenAddress): Promise<Finding> {
  const code = await tryToConnect(address);
  const place = formatListen(address);
  if (code === undefined) return ok(what, `${place} can be reached`);
  return warning(
    what,
    `${place} cannot be reached: ${code}`,
    'is it running, is the port right, does its firewall let this machine in?',
  );
}

function tryToConnect({ host, port }: ListenAddress): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: TIMEOUT_MS });
    socket.once('connect', () => {
      socket.destroy();
      resolve(undefined);
    });
    socket.once('timeout', () => {
      socket.destroy();
      resolve('no answer');
    });
    socket.once('error', ({ code = 'unknown' }: NodeJS.ErrnoException) => resolve(code));
  });
}
