import { stringify } from 'node:querystring';
import type { Dispatcher } from 'undici';
import type { HeaderFields } from '../../lib/http/index.ts';
import { ProxyRequest } from '../../lib/kit/index.ts';

/** Hop-by-hop and framing fields are undici's business, and Host is part of the resource's name. */
const NOT_FOR_THE_KIT = new Set(['host', 'connection', 'keep-alive', 'transfer-encoding', 'content-length', 'expect']);

/** A request as the kit sees it; undefined where it cannot: for an address that is none, or a path that names another host. */
export function toProxyRequest(
  { origin, path, query, method, headers }: Dispatcher.DispatchOptions,
  signal: AbortSignal,
): ProxyRequest | undefined {
  if (origin === undefined || !path.startsWith('/') || !URL.canParse(String(origin))) return undefined;
  const { protocol, host } = new URL(String(origin));
  if (protocol !== 'http:' && protocol !== 'https:') return undefined;
  const fields = readFields(headers);
  const parameters = stringify((query ?? {}) as NodeJS.Dict<string>);
  // Undici refuses a query in both places.
  if (parameters !== '' && /[?#]/.test(path)) return undefined;
  return new ProxyRequest({
    method,
    scheme: protocol === 'https:' ? 'https' : 'http',
    authority: (typeof fields['host'] === 'string' ? fields['host'] : host).toLowerCase(),
    target: parameters === '' ? path : `${path}?${parameters}`,
    headers: Object.fromEntries(Object.entries(fields).filter(([name]) => !NOT_FOR_THE_KIT.has(name))),
    body: null,
    client: { address: '', httpVersion: '1.1' },
    signal,
  });
}

/** The request that the kit passes on, with everything else as the program has asked for it. */
export function toDispatchOptions(
  options: Dispatcher.DispatchOptions,
  request: ProxyRequest,
): Dispatcher.DispatchOptions {
  const own = readFields(options.headers);
  const kept = Object.entries(own).filter(([name]) => NOT_FOR_THE_KIT.has(name));
  const fields = [...kept, ...Object.entries(request.headers)].filter(([, value]) => value !== undefined);
  const headers = Object.fromEntries(
    fields.map(([name, value]) => [name, typeof value === 'object' ? [...value] : value]),
  );
  const asked = { ...options, path: request.target, headers: headers as Record<string, string | string[]> };
  delete asked.query;
  return asked;
}

/** Fields in any of the forms undici takes, with lower-case names. */
function readFields(headers: Dispatcher.DispatchOptions['headers']): HeaderFields {
  const fields: Record<string, string | readonly string[]> = {};
  for (const [name, value] of linesOf(headers)) {
    const key = name.toLowerCase();
    const before = fields[key];
    const lines = Array.isArray(value) ? value.map(String) : [String(value)];
    const all = before === undefined ? lines : [...(typeof before === 'string' ? [before] : before), ...lines];
    fields[key] = all.length === 1 ? (all[0] as string) : all;
  }
  return fields;
}

function linesOf(headers: Dispatcher.DispatchOptions['headers']): (readonly [string, unknown])[] {
  if (headers === undefined || headers === null) return [];
  if (Array.isArray(headers)) {
    const list = headers as readonly unknown[];
    return Array.from({ length: list.length / 2 }, (_, index) => [String(list[2 * index]), list[2 * index + 1]]);
  }
  const lines = Symbol.iterator in headers ? [...headers] : Object.entries(headers);
  return lines.filter(([, value]) => value !== undefined);
}
