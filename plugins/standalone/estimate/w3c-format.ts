/** The extended log format of W3C, as IIS writes it: fields that a line `#Fields:` names, in UTC, `+` for spaces. Bytes include the head. */
import { PeerDistError } from '../../../lib/errors.ts';
import { type LineParser, parseBytes, parseStatus, validTime } from './log-record.ts';

const NEEDED = ['date', 'time', 'c-ip', 'cs-method', 'cs-uri-stem', 'sc-status', 'sc-bytes'] as const;
/** As IIS Manager calls those that are off unless somebody switches them on. */
const TITLES: Readonly<Record<string, string>> = { 'sc-bytes': ' (Bytes Sent)', date: ' (Date)' };
/** Longer lists of fields are not looked at to the end. Policy: IIS has about thirty. */
const MAX_FIELDS = 256;

/** A parser for one file. Its `#Fields:` may change in the middle. It throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when a field is not logged. */
export function w3cParser(): LineParser {
  let places: ReadonlyMap<string, number> | undefined;
  return (line) => {
    if (line.startsWith('#')) {
      if (line.startsWith('#Fields:')) places = placesOf(line.slice('#Fields:'.length).trim().split(/\s+/, MAX_FIELDS));
      return 'comment';
    }
    if (places === undefined) return undefined;
    const fields = line.split(' ', MAX_FIELDS);
    if (fields.length !== places.size) return undefined;
    const field = (name: string): string => fields[places?.get(name) ?? -1] ?? '-';
    const timeMs = parseTime(field('date'), field('time'));
    const status = parseStatus(field('sc-status'));
    const bytes = parseBytes(field('sc-bytes'));
    if (timeMs === undefined || status === undefined || bytes === undefined) return undefined;
    const [host, query] = [field('cs-host'), field('cs-uri-query')];
    const url = `${host === '-' ? '' : host}${field('cs-uri-stem')}${query === '-' ? '' : `?${query}`}`;
    return {
      timeMs,
      client: field('c-ip'),
      method: field('cs-method'),
      url,
      status,
      bytes,
      hasHead: true,
      isCacheHit: false,
    };
  };
}

function placesOf(names: readonly string[]): ReadonlyMap<string, number> {
  const places = new Map(names.map((name, place) => [name.toLowerCase(), place]));
  const missing = NEEDED.filter((name) => !places.has(name)).map((name) => name + (TITLES[name] ?? ''));
  if (missing.length === 0) return places;
  throw new PeerDistError(
    'ERR_PEERDIST_INVALID_OPTION',
    `IIS does not log ${missing.join(', ')} there: switch it on (IIS Manager, Logging, Select Fields) and take a log from then on`,
  );
}

function parseTime(date: string, time: string): number | undefined {
  const parts = /^(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01]) ([01]\d|2[0-3]):([0-5]\d):([0-6]\d)$/.exec(
    `${date} ${time}`,
  );
  if (parts === null) return undefined;
  const [year, month, day, hour, minute, second] = parts.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return validTime(Date.UTC(year, month - 1, day, hour, minute, second));
}
