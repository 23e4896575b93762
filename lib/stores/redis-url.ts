import { isIPv6 } from 'node:net';
import { PeerDistError } from '../errors.ts';

/** Where a Redis is, and who we are there. */
export interface RedisUrl {
  readonly servers: readonly RedisServer[];
  readonly isTls: boolean;
  readonly username: string | undefined;
  readonly password: string | undefined;
  /** Number of the database; 0 in a cluster. */
  readonly database: number;
}

export interface RedisServer {
  readonly host: string;
  readonly port: number;
}

const DEFAULT_PORT = 6379;
/** Servers one URL can name. Policy, not protocol. */
const MAX_SERVERS = 16;
const MAX_DATABASE = 65_535;

const URL_PATTERN =
  /^(?<scheme>rediss?):\/\/(?:(?<userinfo>[^@/?#]*)@)?(?<servers>[^@/?#]+)(?:\/(?<database>\d{0,5}))?$/;
const SERVER_PATTERN = /^(?:\[(?<address>[0-9a-fA-F:.]+)\]|(?<name>[A-Za-z0-9._-]{1,253}))(?::(?<port>\d{1,5}))?$/;

/**
 * `redis[s]://[user[:password]@]host[:port][,host[:port]…][/database]`; more than one host: a cluster.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`, which never repeats the URL: it may have a password
 */
export function parseRedisUrl(url: string): RedisUrl {
  const parts = URL_PATTERN.exec(url)?.groups;
  if (parts === undefined) throw invalid('is not one like redis://user:password@host:6379/0');
  const { scheme, userinfo, servers: list = '', database: number = '' } = parts;
  const servers = list.split(',').map(parseServer);
  if (servers.length > MAX_SERVERS) throw invalid(`names more than ${MAX_SERVERS} servers`);
  const database = Number(number);
  if (database > MAX_DATABASE) throw invalid('has no such database');
  if (database > 0 && servers.length > 1) throw invalid('has a database number, which a cluster does not have');
  return { servers, isTls: scheme === 'rediss', ...parseUserinfo(userinfo), database };
}

function parseServer(text: string): RedisServer {
  const { address, name, port = String(DEFAULT_PORT) } = SERVER_PATTERN.exec(text)?.groups ?? {};
  const host = address ?? name;
  const isServer = host !== undefined && (address === undefined || isIPv6(address)) && isPort(Number(port));
  if (!isServer) throw invalid('has a server that is not like host:6379');
  return { host, port: Number(port) };
}

function parseUserinfo(userinfo: string | undefined): Pick<RedisUrl, 'username' | 'password'> {
  if (userinfo === undefined || userinfo === '') return { username: undefined, password: undefined };
  const colon = userinfo.indexOf(':');
  if (colon < 0 || colon === userinfo.length - 1) throw invalid('has a user without a password');
  try {
    const username = decodeURIComponent(userinfo.slice(0, colon));
    return {
      username: username === '' ? undefined : username,
      password: decodeURIComponent(userinfo.slice(colon + 1)),
    };
  } catch {
    throw invalid('has a % that is not followed by two digits');
  }
}

export function isPort(port: number): boolean {
  return Number.isInteger(port) && port > 0 && port < 65_536;
}

function invalid(what: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `the URL of Redis ${what}`);
}
