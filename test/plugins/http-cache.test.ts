/**
 * The block cache as a shared HTTP cache, before origins that know nothing of BranchCache: RFC 9110, 9111, 5861 and 9213 as tables, and what cannot be
 * said in one line. Each row is tried as gateway and as forward proxy.
 */
import t from 'tap';
import type { ProxyRequest } from '../../lib/kit/index.ts';
import { QueryGuard } from '../../plugins/block-cache/query-guard.ts';
import {
  type AnswerFields,
  type Behaviour,
  CacheTable,
  inSeconds,
  START,
  type Scripted,
} from '../support/http-cache.ts';
import { ManualClock } from '../support/manual-clock.ts';
import {
  type Answer,
  ask,
  begin,
  Connection,
  Gate,
  Origin,
  type OriginHandler,
  requestText,
  same,
  sendFile,
  startBranch,
  until,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { turns } from '../support/turns.ts';

type Row = Omit<Behaviour, 'spec' | 'name' | 'level'>;

const must = (spec: string, name: string, row: Row): Behaviour => ({ spec, name, level: 'required', ...row });
const may = (spec: string, name: string, row: Row): Behaviour => ({ spec, name, level: 'optimal', ...row });

/** An answer that is reused for so many seconds, and then no longer. */
function lives(spec: string, name: string, answer: Scripted, seconds: number, options = {}): Behaviour[] {
  const stale = must(spec, `${name}: ${seconds === 0 ? 'is not reused' : `no longer than ${seconds} s`}`, {
    options,
    answers: [answer],
    requests: [0, seconds],
    expect: ['new', 'new'],
  });
  if (seconds === 0) return [stale];
  return [
    may(spec, `${name}: for ${seconds} s`, {
      options,
      answers: [answer],
      requests: [0, seconds - 1],
      expect: ['new', 'kept'],
    }),
    stale,
  ];
}

const with_ = (fields: AnswerFields, status = 200): Scripted => ({ status, fields });
const cc = (value: string, fields: AnswerFields = {}, status = 200): Scripted =>
  with_({ 'cache-control': value, ...fields }, status);
const FRESH = 'max-age=60';
const TAGGED = cc('max-age=60', { etag: '"a"' });
const UNCHANGED: Scripted = { status: 304, fields: { etag: '"a"' } };
const DAYS = ['Sun', 'Mon', 'Tues', 'Wednes', 'Thurs', 'Fri', 'Satur'];

/** The two obsolete forms of a date (RFC 9110 5.6.7). */
function rfc850(time: number): string {
  const [day, month, year, clock] = new Date(time).toUTCString().split(' ').slice(1) as [
    string,
    string,
    string,
    string,
  ];
  const name = DAYS[new Date(time).getUTCDay()] as string;
  return `${name.replace(/day$/, '')}day, ${day}-${month}-${year.slice(2)} ${clock} GMT`;
}

function asctime(time: number): string {
  const [name, day, month, year, clock] = new Date(time).toUTCString().split(' ') as [
    string,
    string,
    string,
    string,
    string,
  ];
  return `${name.slice(0, 3)} ${month} ${day.replace(/^0/, ' ')} ${clock} ${year}`;
}

/** What Expires may say that is no date, and so lies in the past. */
const INVALID_DATES: readonly (readonly [what: string, expires: (now: number) => string])[] = [
  ['0', () => '0'],
  ['-1', () => '-1'],
  ['nothing', () => ''],
  ['a word', () => 'never'],
  ['seconds since 1970', (now: number) => String(Math.round(now / 1000) + 60)],
  ['an ISO date', (now: number) => new Date(now + 60_000).toISOString()],
  ['another zone', (now: number) => new Date(now + 60_000).toUTCString().replace('GMT', '+0000')],
  ['UTC', (now: number) => new Date(now + 60_000).toUTCString().replace('GMT', 'UTC')],
  ['no zone', (now: number) => new Date(now + 60_000).toUTCString().replace(' GMT', '')],
  ['no seconds', (now: number) => new Date(now + 3_600_000).toUTCString().replace(/:\d\d GMT/, ' GMT')],
  ['no weekday', (now: number) => new Date(now + 60_000).toUTCString().slice(5)],
  ['quotes', (now: number) => `"${new Date(now + 60_000).toUTCString()}"`],
  ['an hour that is none', (now: number) => new Date(now + 1e9).toUTCString().replace(/ \d\d:/, ' 27:')],
  ['a month that is none', (now: number) => new Date(now + 1e9).toUTCString().replace(/ [A-Z][a-z]{2} /, ' Juy ')],
];

const lifetimes: readonly Behaviour[] = [
  ...lives('RFC 9111 5.2.2.1', 'max-age', FRESH, 60),
  ...lives('RFC 9111 5.2.2.1', 'max-age=0', 'max-age=0', 0),
  ...lives('RFC 9111 5.2.2.10', 's-maxage alone', 's-maxage=60', 60),
  ...lives('RFC 9111 5.2.2.10', 's-maxage goes before max-age', 'max-age=1, s-maxage=60', 60),
  ...lives('RFC 9111 5.2.2.10', 's-maxage=0 goes before max-age', 'max-age=60, s-maxage=0', 0),
  ...lives('RFC 9111 5.2.2.10', 's-maxage goes before Expires', cc('s-maxage=60', { expires: inSeconds(5) }), 60),
  ...lives('RFC 9111 5.3', 'max-age goes before a later Expires', cc('max-age=10', { expires: inSeconds(999) }), 10),
  ...lives('RFC 9111 5.3', 'max-age goes before an Expires that has passed', cc(FRESH, { expires: inSeconds(-9) }), 60),
  ...lives('RFC 9111 5.2', 'directives in capitals', 'MAX-AGE=60', 60),
  ...lives('RFC 9111 5.2', 'directives on two lines', with_({ 'cache-control': ['x-own', 'max-age=60'] }), 60),
  ...lives('RFC 9111 5.2', 'a quoted number', 'max-age="60"', 60),
  ...lives('RFC 9111 5.2', 'leading zeros', 'max-age=0060', 60),
  ...lives('RFC 9111 5.2', 'empty members', ', ,max-age=60,,', 60),
  ...lives('RFC 9111 5.2.3', 'a directive nobody knows', 'x-own=1, max-age=60', 60),
  ...lives('RFC 9111 5.2.3', 'a directive inside the value of another', 'x-own="no-store, max-age=0", max-age=60', 60),
  ...lives('RFC 9111 5.2.3', 'a name that only ends like it', with_({ 'cache-control': 'x-max-age=60' }), 0),
  ...lives('RFC 9111 4.2.1', 'the first of two counts', 'max-age=60, max-age=0', 60),
  may('RFC 9111 1.2.2', 'seconds that are more than a number holds', {
    answers: ['max-age=99999999999999999999'],
    requests: [0, 9_999],
    expect: ['new', 'kept'],
  }),
  ...['abc', '', '-60', '1.5', '60abc', '6e1', '0x60', '"60s"', "'60'"].flatMap((value) =>
    lives('RFC 9111 4.2.1', `max-age=${value} is none`, `max-age=${value}`, 0),
  ),
  ...lives('RFC 9111 4.2.1', 'max-age without a value is none', 'max-age', 0),
  ...lives('RFC 9111 4.2.1', 's-maxage that is none does not leave it to max-age', 's-maxage=soon, max-age=60', 0),
  ...lives('RFC 9111 5.3', 'Expires', with_({ expires: inSeconds(60) }), 60),
  ...lives('RFC 9110 5.6.7', 'Expires in the form of RFC 850', with_({ expires: (now) => rfc850(now + 60_000) }), 60),
  ...lives('RFC 9110 5.6.7', 'Expires in the form of asctime', with_({ expires: (now) => asctime(now + 60_000) }), 60),
  may('RFC 9110 5.6.7', 'two digits of a year less than 50 ahead', {
    answers: [with_({ expires: 'Monday, 12-Jun-79 13:14:15 GMT' })],
    requests: [0, 9_999],
    expect: ['new', 'kept'],
  }),
  ...lives(
    'RFC 9110 5.6.7',
    'two digits of a year of the century before',
    with_({ expires: 'Friday, 12-Jun-81 13:14:15 GMT' }),
    0,
  ),
  ...lives('RFC 9111 5.3', 'Expires at the time of Date', with_({ expires: inSeconds(0) }), 0),
  ...lives('RFC 9111 5.3', 'Expires before Date', with_({ expires: inSeconds(-60) }), 0),
  ...lives(
    'RFC 9111 4.2.1',
    'Expires counts from Date, whatever our clock says',
    with_({ date: inSeconds(3600), expires: inSeconds(3660) }),
    60,
  ),
  ...lives(
    'RFC 9111 4.2.1',
    'Expires on two lines: the first',
    with_({ expires: (now) => [inSeconds(60)(now), '0'] }),
    60,
  ),
  ...lives(
    'RFC 9111 4.2.1',
    'Expires without a Date counts from now',
    with_({ date: undefined, expires: inSeconds(60) }),
    60,
  ),
  ...INVALID_DATES.flatMap(([what, expires]) => lives('RFC 9111 5.3', `Expires: ${what}`, with_({ expires }), 0)),
  ...lives('RFC 9111 4.2.3', 'Age is part of the lifetime', cc(FRESH, { age: '45' }), 15),
  ...lives('RFC 9111 4.2.3', 'Age beyond the lifetime', cc(FRESH, { age: '60' }), 0),
  ...lives('RFC 9111 4.2.3', 'Age in capitals and zeros', cc(FRESH, { AGE: '0045' }), 15),
  ...lives('RFC 9111 1.2.2', 'Age that is more than a number holds', cc(FRESH, { age: '99999999999999999999' }), 0),
  ...lives('RFC 9111 5.1', 'Age on two lines: the first', cc(FRESH, { age: ['45', '2'] }), 15),
  ...lives('RFC 9111 5.1', 'Age that is a list: the first', cc(FRESH, { age: '45, 2' }), 15),
  ...['abc', '-45', '4.5', '', '45s'].flatMap((age) =>
    lives('RFC 9111 5.1', `Age: ${age} is none`, cc(FRESH, { age }), 60),
  ),
  ...lives('RFC 9111 4.2.3', 'Age and Expires', with_({ age: '45', expires: inSeconds(60) }), 15),
  ...lives('RFC 9111 4.2.2', 'a tenth of what it has not changed for', with_({ 'last-modified': inSeconds(-600) }), 60),
  ...lives('RFC 9111 4.2.2', 'Last-Modified in the future', with_({ 'last-modified': inSeconds(600) }), 0),
  ...lives('RFC 9111 4.2.2', 'Last-Modified that is no date', with_({ 'last-modified': 'long ago' }), 0),
  ...lives('RFC 9111 4.2.2', 'neither a lifetime nor a date', with_({}), 0),
  ...lives(
    'RFC 9111 4.2.2',
    'no guess where a lifetime is said',
    cc('max-age=5', { 'last-modified': inSeconds(-6e6) }),
    5,
  ),
  ...lives(
    'RFC 9111 4.2.2',
    'no guess where Expires is no date',
    with_({ expires: 'x', 'last-modified': inSeconds(-6e6) }),
    0,
  ),
];

const KEPT_BY_GUESS = [203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
const NEVER_BY_GUESS = [201, 202, 302, 303, 307, 400, 401, 403, 406, 409, 418, 429, 451, 500, 502, 503, 504, 599];

const codes: readonly Behaviour[] = [
  ...[...KEPT_BY_GUESS, ...NEVER_BY_GUESS].map((status) =>
    may('RFC 9111 3', `${status} with a lifetime is kept`, {
      answers: [cc(FRESH, { location: '/there' }, status)],
      requests: [0, 30],
      expect: ['new', 'kept'],
      shows: { 1: { location: '/there', 'x-answer': '1' } },
    }),
  ),
  ...KEPT_BY_GUESS.map((status) =>
    may('RFC 9110 15.1', `${status} without one is kept for a while`, {
      answers: [with_({ 'last-modified': inSeconds(-600) }, status)],
      requests: [0, 30],
      expect: ['new', 'kept'],
    }),
  ),
  ...NEVER_BY_GUESS.map((status) =>
    must('RFC 9110 15.1', `${status} without one is not kept`, {
      answers: [with_({ 'last-modified': inSeconds(-600) }, status)],
      requests: [0, 1],
      expect: ['new', 'new'],
    }),
  ),
  ...[412, 416].map((status) =>
    must('RFC 9110 15.5', `${status} is the answer to one request`, {
      answers: [cc(FRESH, {}, status)],
      requests: [0, 1],
      expect: ['new', 'new'],
    }),
  ),
  may('RFC 9111 5.2.2.9', 'public makes any code one to keep', {
    answers: [cc('public', { 'last-modified': inSeconds(-600) }, 302)],
    requests: [0, 30],
    expect: ['new', 'kept'],
  }),
  may('RFC 9111 5.2.2.3', 'must-understand, and we do', {
    answers: ['must-understand, max-age=60'],
    requests: [0, 30],
    expect: ['new', 'kept'],
  }),
  may('RFC 9111 5.2.2.3', 'who understands the code need not heed no-store', {
    answers: ['must-understand, no-store, max-age=60'],
    requests: [0, 30],
    expect: ['new', 'kept'],
  }),
  must('RFC 9111 5.2.2.3', 'must-understand, and we do not', {
    answers: [cc('must-understand, max-age=60', {}, 599)],
    requests: [0, 1],
    expect: ['new', 'new'],
  }),
  must('RFC 9111 5.2.2.3', 'no-store for those who do not understand', {
    answers: [cc('must-understand, no-store, max-age=60', {}, 499)],
    requests: [0, 1],
    expect: ['new', 'new'],
  }),
];

const never = (spec: string, name: string, answer: Scripted, options = {}): Behaviour =>
  must(spec, name, { options, answers: [answer], requests: [0, 1, 1], expect: ['new', 'new', 'new'] });

const directives: readonly Behaviour[] = [
  never('RFC 9111 5.2.2.5', 'no-store', 'no-store'),
  never('RFC 9111 5.2.2.5', 'no-store beside a lifetime', 'max-age=60, no-store'),
  never('RFC 9111 5.2.2.5', 'No-Store', 'max-age=60, No-Store'),
  never('RFC 9111 5.2.2.5', 'no-store with a value', 'max-age=60, no-store=0'),
  never('RFC 9111 5.2.2.5', 'no-store on the second line', with_({ 'cache-control': [FRESH, 'no-store'] })),
  never('RFC 9111 5.2.2.7', 'private', 'private'),
  never('RFC 9111 5.2.2.7', 'private beside a lifetime', 'private, max-age=60'),
  never('RFC 9111 5.2.2.7', 'private for one field', 'private="x-own", max-age=60'),
  never('RFC 9111 5.2.2.7', 'private and s-maxage', 's-maxage=60, private'),
  never('RFC 9111 5.2.2.4', 'no-cache without a validator', 'no-cache, max-age=60'),
  never('RFC 9111 5.2.2.4', 'no-cache for one field', 'max-age=60, no-cache="x-own"'),
  never('RFC 9110 7.6.1', 'nothing at all, and a validator is no lifetime', with_({ 'x-own': '1' })),
  may('RFC 9111 5.2.2.4', 'no-cache with a validator is asked about each time', {
    answers: [cc('no-cache, max-age=60', { etag: '"a"' }), UNCHANGED],
    requests: [0, 1, 1],
    expect: ['new', 'checked', 'checked'],
    asks: { 1: { 'if-none-match': '"a"' } },
  }),
  may('RFC 9111 4.2.4', 'must-revalidate: fresh like any other', {
    answers: ['max-age=60, must-revalidate'],
    requests: [0, 59],
    expect: ['new', 'kept'],
  }),
  ...['must-revalidate', 'proxy-revalidate'].flatMap((directive) => [
    must('RFC 9111 5.2.2.2', `${directive}: no stale answer where the origin is away`, {
      answers: [`max-age=60, ${directive}`, 'dead'],
      requests: [0, 61],
      expect: ['new', '502 asked'],
    }),
    must('RFC 9111 5.2.2.2', `${directive}: none where it answers with an error either`, {
      answers: [`max-age=60, stale-if-error=600, ${directive}`, cc('no-store', {}, 503)],
      requests: [0, 61],
      expect: ['new', 'new'],
    }),
    must('RFC 5861 3', `${directive}: none while the origin is asked`, {
      answers: [`max-age=60, stale-while-revalidate=600, ${directive}`],
      requests: [0, 61],
      expect: ['new', 'new'],
    }),
  ]),
  must('RFC 9111 5.2.2.10', 's-maxage: no stale answer where the origin is away', {
    answers: ['s-maxage=60', 'dead'],
    requests: [0, 61],
    expect: ['new', '502 asked'],
  }),
  must('RFC 9111 5.2.2.4', 'no-cache: no stale answer where the origin is away', {
    answers: [cc('no-cache', { etag: '"a"' }), 'dead'],
    requests: [0, 1],
    expect: ['new', '502 asked'],
  }),
  may('RFC 9111 4.2.4', 'a stale answer where the origin is away, for a day', {
    answers: [TAGGED, 'dead'],
    requests: [0, 61, 3600, 24 * 3600],
    expect: ['new', 'instead', 'instead', '502 asked'],
  }),
  may('RFC 9111 5.4', 'Pragma beside Cache-Control means nothing', {
    answers: [cc(FRESH, { pragma: 'no-cache' })],
    requests: [0, 30],
    expect: ['new', 'kept'],
  }),
  may('RFC 9111 5.2.2.6', 'no-transform does not hinder', {
    answers: ['max-age=60, no-transform'],
    requests: [0, 30],
    expect: ['new', 'kept'],
    shows: { 1: { 'cache-control': 'max-age=60, no-transform' } },
  }),
];

const asked = (fields: Readonly<Record<string, string>>, after = 0): Behaviour['requests'][number] => ({
  after,
  fields,
});

const requests: readonly Behaviour[] = [
  must('RFC 9111 5.2.1.4', 'no-cache', {
    answers: [FRESH],
    requests: [0, asked({ 'Cache-Control': 'no-cache' }, 1), 1],
    expect: ['new', 'new', 'kept'],
  }),
  may('RFC 9111 5.2.1.4', 'no-cache may be answered out of what has been checked', {
    answers: [TAGGED, UNCHANGED],
    requests: [0, asked({ 'Cache-Control': 'no-cache' }, 1)],
    expect: ['new', 'checked'],
  }),
  must('RFC 9111 5.4', 'Pragma: no-cache without Cache-Control', {
    answers: [FRESH],
    requests: [0, asked({ Pragma: 'no-cache' }, 1)],
    expect: ['new', 'new'],
  }),
  may('RFC 9111 5.4', 'Pragma: no-cache beside Cache-Control', {
    answers: [FRESH],
    requests: [0, asked({ Pragma: 'no-cache', 'Cache-Control': 'max-age=60' }, 1)],
    expect: ['new', 'kept'],
  }),
  must('RFC 9111 5.2.1.1', 'max-age=0', {
    answers: [FRESH],
    requests: [0, asked({ 'Cache-Control': 'max-age=0' }, 1)],
    expect: ['new', 'new'],
  }),
  must('RFC 9111 5.2.1.1', 'older than max-age', {
    answers: [FRESH],
    requests: [0, asked({ 'Cache-Control': 'max-age=20' }, 21)],
    expect: ['new', 'new'],
  }),
  must('RFC 9111 5.2.1.1', 'older than max-age by the Age it came with', {
    answers: [cc(FRESH, { age: '15' })],
    requests: [0, asked({ 'Cache-Control': 'max-age=20' }, 10)],
    expect: ['new', 'new'],
  }),
  may('RFC 9111 5.2.1.1', 'not older than max-age', {
    answers: [FRESH],
    requests: [0, asked({ 'Cache-Control': 'max-age=20' }, 19)],
    expect: ['new', 'kept'],
  }),
  may('RFC 9111 5.2.1.1', 'max-age that is no number', {
    answers: [FRESH],
    requests: [0, asked({ 'Cache-Control': 'max-age=now' }, 19)],
    expect: ['new', 'kept'],
  }),
  must('RFC 9111 5.2.1.1', 'a large max-age makes nothing fresh', {
    answers: [FRESH],
    requests: [0, asked({ 'Cache-Control': 'max-age=999' }, 61)],
    expect: ['new', 'new'],
  }),
  must('RFC 9111 5.2.1.3', 'less fresh than min-fresh', {
    answers: [FRESH],
    requests: [0, asked({ 'Cache-Control': 'min-fresh=20' }, 45)],
    expect: ['new', 'new'],
  }),
  may('RFC 9111 5.2.1.3', 'as fresh as min-fresh', {
    answers: [FRESH],
    requests: [0, asked({ 'Cache-Control': 'min-fresh=20' }, 35)],
    expect: ['new', 'kept'],
  }),
  must('RFC 9111 5.2.1.5', 'what a no-store request brought is not kept', {
    answers: [FRESH],
    requests: [asked({ 'Cache-Control': 'no-store' }), 1],
    expect: ['new', 'new'],
  }),
  may('RFC 9111 5.2.1.5', 'a no-store request may have what is kept', {
    answers: [FRESH],
    requests: [0, asked({ 'Cache-Control': 'no-store' }, 1), 1],
    expect: ['new', 'kept', 'kept'],
  }),
  must('RFC 9111 5.2.1.7', 'only-if-cached, and nothing is', {
    answers: [FRESH],
    requests: [asked({ 'Cache-Control': 'only-if-cached' }), 0],
    expect: ['504', 'new'],
  }),
  may('RFC 9111 5.2.1.7', 'only-if-cached, and it is', {
    answers: [FRESH],
    requests: [0, asked({ 'Cache-Control': 'only-if-cached' }, 1)],
    expect: ['new', 'kept'],
  }),
  must('RFC 9111 5.2.1.7', 'only-if-cached, and it is stale', {
    answers: [FRESH],
    requests: [0, asked({ 'Cache-Control': 'only-if-cached' }, 61)],
    expect: ['new', '504'],
  }),
  must('RFC 9111 5.2.1.2', 'max-stale is not an order', {
    answers: ['max-age=60, must-revalidate'],
    requests: [0, asked({ 'Cache-Control': 'max-stale=600' }, 61)],
    expect: ['new', 'new'],
  }),
  must('RFC 9111 5.2.1.6', 'a directive nobody knows reaches the origin', {
    answers: [FRESH],
    requests: [asked({ 'Cache-Control': 'x-own=1' })],
    expect: ['new'],
    asks: { 0: { 'cache-control': 'x-own=1' } },
  }),
];

/** Request fields, one request after the other; the answer says what it varies by. */
const varies = (vary: string | readonly string[], ...fields: readonly Readonly<Record<string, string>>[]): Row => ({
  answers: [cc(FRESH, { vary })],
  requests: fields.map((each) => ({ after: 1, fields: each })),
  expect: [],
});

const KINDS = Array.from({ length: 18 }, (_, index) => ({ 'X-Kind': String(index) }));
const variants: readonly Behaviour[] = [
  may('RFC 9111 4.1', 'the same value', {
    ...varies('X-Kind', { 'X-Kind': 'a' }, { 'X-Kind': 'a' }),
    expect: ['new', 'kept'],
  }),
  must('RFC 9111 4.1', 'another value', {
    ...varies('X-Kind', { 'X-Kind': 'a' }, { 'X-Kind': 'b' }),
    expect: ['new', 'new'],
  }),
  must('RFC 9111 4.1', 'no value', { ...varies('X-Kind', { 'X-Kind': 'a' }, {}), expect: ['new', 'new'] }),
  must('RFC 9111 4.1', 'a value where there was none', {
    ...varies('X-Kind', {}, { 'X-Kind': 'a' }),
    expect: ['new', 'new'],
  }),
  must('RFC 9111 4.1', 'an empty value is not none', {
    ...varies('X-Kind', {}, { 'X-Kind': '' }),
    expect: ['new', 'new'],
  }),
  must('RFC 9111 4.1', 'letters in another case, where nobody knows better', {
    ...varies('X-Kind', { 'X-Kind': 'a' }, { 'X-Kind': 'A' }),
    expect: ['new', 'new'],
  }),
  may('RFC 9111 4.1', 'two answers side by side', {
    ...varies('X-Kind', { 'X-Kind': 'a' }, { 'X-Kind': 'b' }, { 'X-Kind': 'a' }, { 'X-Kind': 'b' }),
    expect: ['new', 'new', 'kept 1', 'kept'],
  }),
  may('RFC 9110 12.5.5', 'names in any case', {
    ...varies('x-KIND', { 'X-Kind': 'a' }, { 'X-Kind': 'a' }, { 'X-Kind': 'b' }),
    expect: ['new', 'kept', 'new'],
  }),
  may('RFC 9111 4.1', 'other fields do not matter', {
    ...varies('X-Kind', { 'X-Kind': 'a', 'X-Other': '1' }, { 'X-Kind': 'a', 'X-Other': '2' }),
    expect: ['new', 'kept'],
  }),
  must('RFC 9111 4.1', 'the second of several names', {
    ...varies('X-Kind, X-Other, X-More', { 'X-Kind': 'a', 'X-Other': '1' }, { 'X-Kind': 'a', 'X-Other': '2' }),
    expect: ['new', 'new'],
  }),
  must('RFC 9111 4.1', 'names on two lines', {
    ...varies(['X-Kind', 'X-Other'], { 'X-Kind': 'a', 'X-Other': '1' }, { 'X-Kind': 'a', 'X-Other': '2' }),
    expect: ['new', 'new'],
  }),
  may('RFC 9111 4.1', 'all of several names', {
    ...varies('X-Kind, X-Other, X-Kind', { 'X-Kind': 'a', 'X-Other': '1' }, { 'X-Other': '1', 'X-Kind': 'a' }),
    expect: ['new', 'kept'],
  }),
  must('RFC 9111 4.1', 'Vary: *', { ...varies('*', {}, {}), expect: ['new', 'new'] }),
  must('RFC 9111 4.1', 'Vary: * among others', { ...varies('X-Kind, *', {}, {}), expect: ['new', 'new'] }),
  must('RFC 9111 4.1', 'Vary: * on the second line', { ...varies(['X-Kind', '*'], {}, {}), expect: ['new', 'new'] }),
  may('RFC 9111 4.1', 'white space in a list', {
    ...varies('X-Kind', { 'X-Kind': 'a, b' }, { 'X-Kind': 'a ,b' }),
    expect: ['new', 'kept'],
  }),
  may('RFC 9111 4.1', 'languages in another order and case', {
    ...varies('Accept-Language', { 'Accept-Language': 'en;q=0.5, de' }, { 'Accept-Language': 'DE,EN; q=0.5' }),
    expect: ['new', 'kept'],
  }),
  must('RFC 9111 4.1', 'languages with other weights', {
    ...varies('Accept-Language', { 'Accept-Language': 'en;q=0.5, de' }, { 'Accept-Language': 'en, de;q=0.5' }),
    expect: ['new', 'new'],
  }),
  must('RFC 9111 4.1', 'a cookie is byte for byte', {
    ...varies('Cookie', { Cookie: 'a=1; b=2' }, { Cookie: 'b=2; a=1' }),
    expect: ['new', 'new'],
  }),
  must('RFC 9111 4.1', 'as many variants as are kept, and two more', {
    ...varies('X-Kind', ...KINDS, KINDS[17] ?? {}, KINDS[0] ?? {}),
    expect: [...KINDS.map(() => 'new'), 'kept', 'new'],
  }),
  may('RFC 9111 4.1', 'a name that every object has', { ...varies('constructor', {}, {}), expect: ['new', 'kept'] }),
  must('RFC 9111 4.1', 'more names than anybody needs', {
    ...varies(Array.from({ length: 17 }, (_, index) => `X-${index}`).join(', '), {}, {}),
    expect: ['new', 'new'],
  }),
  must('RFC 9111 4.1', 'the validator of one answer is not asked about another', {
    answers: [cc('max-age=1', { vary: 'X-Kind', etag: '"a"' })],
    requests: [asked({ 'X-Kind': 'a' }), asked({ 'X-Kind': 'b' }, 2)],
    expect: ['new', 'new'],
    asks: { 1: { 'if-none-match': undefined } },
  }),
  must('RFC 9110 8.4', 'a coding is for who asked for it, even where Vary is missing', {
    answers: [cc(FRESH, { 'content-encoding': 'gzip' }), FRESH],
    requests: [asked({ 'Accept-Encoding': 'gzip' }), asked({ 'Accept-Encoding': 'identity' }, 1)],
    expect: ['new', 'new'],
    shows: { 0: { 'content-encoding': 'gzip' }, 1: { 'content-encoding': undefined } },
  }),
  may('RFC 9110 8.4', 'a coding for who asks for it again', {
    answers: [cc(FRESH, { 'content-encoding': 'gzip', vary: 'accept-encoding' })],
    requests: [asked({ 'Accept-Encoding': 'gzip, br' }), asked({ 'Accept-Encoding': 'br,gzip' }, 1)],
    expect: ['new', 'kept'],
    shows: { 1: { 'content-encoding': 'gzip', vary: 'accept-encoding' } },
  }),
];

const TOM = { Authorization: 'Basic VG9tOjE=' };
const personal: readonly Behaviour[] = [
  must('RFC 9111 3.5', 'what a user got is not for another', {
    answers: [FRESH],
    requests: [asked(TOM), asked({ Authorization: 'Basic QW5uOjE=' }, 1)],
    expect: ['new', 'new'],
  }),
  must('RFC 9111 3.5', 'what a user got is not for everybody', {
    answers: [FRESH],
    requests: [asked(TOM), 1],
    expect: ['new', 'new'],
  }),
  must('RFC 9111 3.5', 'an Expires does not share it', {
    answers: [with_({ expires: inSeconds(60) })],
    requests: [asked(TOM), 1],
    expect: ['new', 'new'],
  }),
  ...['public, max-age=60', 's-maxage=60', 'max-age=60, must-revalidate'].map((value) =>
    may('RFC 9111 3.5', `${value} shares it`, {
      answers: [value],
      requests: [asked(TOM), asked({ Authorization: 'Basic QW5uOjE=' }, 1), 1],
      expect: ['new', 'kept', 'kept'],
    }),
  ),
  must('RFC 9111 3.5', 'public without a lifetime and without a date', {
    answers: ['public'],
    requests: [asked(TOM), 1],
    expect: ['new', 'new'],
  }),
  must('RFC 9111 7.3', 'a cookie is for one user', {
    answers: [cc(FRESH, { 'set-cookie': 'session=1' })],
    requests: [0, 1],
    expect: ['new', 'new'],
  }),
  must('RFC 9111 7.3', 'a cookie is for one user, whatever the origin says', {
    answers: [cc('public, max-age=60', { 'set-cookie': 'theme=dark' })],
    requests: [0, 1],
    expect: ['new', 'new'],
    shows: { 0: { 'set-cookie': 'theme=dark' } },
  }),
];

const checking = (
  first: AnswerFields,
  second: AnswerFields,
  shown: Readonly<Record<string, string | RegExp | undefined>>,
): Row => ({
  answers: [
    with_({ 'cache-control': 'max-age=1', etag: '"a"', ...first }),
    { status: 304, fields: { 'cache-control': 'max-age=1', ...second } },
  ],
  requests: [0, 2, 0],
  expect: ['new', 'checked', 'kept'],
  shows: { 1: shown, 2: shown },
});

const validation: readonly Behaviour[] = [
  may('RFC 9111 4.3.1', 'a tag is asked about', {
    answers: [cc('max-age=1', { etag: '"a"' }), UNCHANGED],
    requests: [0, 2],
    expect: ['new', 'checked'],
    asks: { 1: { 'if-none-match': '"a"' } },
  }),
  may('RFC 9111 4.3.1', 'a weak tag is asked about', {
    answers: [cc('max-age=1', { etag: 'W/"a"' }), { status: 304, fields: { etag: 'W/"a"' } }],
    requests: [0, 2],
    expect: ['new', 'checked'],
    asks: { 1: { 'if-none-match': 'W/"a"' } },
  }),
  may('RFC 9111 4.3.1', 'a date is asked about as it was written', {
    answers: [cc('max-age=1', { 'last-modified': 'Sat, 01 Jan 2000 00:00:00 GMT' }), { status: 304 }],
    requests: [0, 2],
    expect: ['new', 'checked'],
    asks: { 1: { 'if-modified-since': 'Sat, 01 Jan 2000 00:00:00 GMT' } },
  }),
  must('RFC 9111 4.3.3', 'another answer takes its place', {
    answers: [cc('max-age=1', { etag: '"a"' }), cc(FRESH, { etag: '"b"' })],
    requests: [0, 2, 1],
    expect: ['new', 'new', 'kept'],
    shows: { 1: { etag: '"b"' }, 2: { etag: '"b"' } },
  }),
  ...[404, 410].map((status) =>
    must('RFC 9111 4.3.3', `${status} takes its place`, {
      answers: [cc('max-age=1', { etag: '"a"' }), cc('no-store', {}, status)],
      requests: [0, 2, 1],
      expect: ['new', 'new', 'new'],
      asks: { 1: { 'if-none-match': '"a"' }, 2: { 'if-none-match': undefined } },
    }),
  ),
  may('RFC 9111 4.3.3', 'an error does not take its place', {
    answers: [cc('max-age=1', { etag: '"a"' }), cc('no-store', {}, 500), UNCHANGED],
    requests: [0, 2, 1],
    expect: ['new', 'new', 'checked 1'],
  }),
  may('RFC 9111 4.3.4', 'a 304 makes it fresh again, for its own lifetime', {
    answers: [cc('max-age=1', { etag: '"a"' }), { status: 304, fields: { etag: '"a"', 'cache-control': FRESH } }],
    requests: [0, 2, 59],
    expect: ['new', 'checked', 'kept'],
    shows: { 2: { age: '59', 'cache-control': FRESH } },
  }),
  must('RFC 9111 4.3.4', 'and no longer', {
    answers: [cc('max-age=1', { etag: '"a"' }), { status: 304, fields: { etag: '"a"', 'cache-control': FRESH } }],
    requests: [0, 2, 61],
    expect: ['new', 'checked', 'checked'],
  }),
  must('RFC 9111 3.2', 'a 304 replaces fields', checking({ 'x-own': '1' }, { 'x-own': '2' }, { 'x-own': '2' })),
  must('RFC 9111 3.2', 'a 304 adds fields', checking({}, { 'x-own': '2' }, { 'x-own': '2' })),
  must('RFC 9111 3.2', 'a 304 leaves the others alone', checking({ 'x-own': '1' }, {}, { 'x-own': '1' })),
  must('RFC 9111 3.2', 'a 304 replaces Expires', checking({ expires: '0' }, { expires: '1' }, { expires: '1' })),
  must(
    'RFC 9111 3.2',
    'a 304 replaces Date',
    checking(
      { date: inSeconds(-9) },
      { date: () => new Date(START).toUTCString() },
      { date: new Date(START).toUTCString() },
    ),
  ),
  must(
    'RFC 9111 3.2',
    'a 304 does not replace Content-Length',
    checking({}, { 'content-length': '3' }, { 'content-length': /^\d\d$/ }),
  ),
  must(
    'RFC 9111 3.2',
    'a 304 does not replace Content-Encoding',
    checking({}, { 'content-encoding': 'gzip' }, { 'content-encoding': undefined }),
  ),
  must(
    'RFC 9111 3.2',
    'a 304 does not bring Content-Range',
    checking({}, { 'content-range': 'bytes 0-1/9' }, { 'content-range': undefined }),
  ),
  must('RFC 9111 3.2', 'a 304 does not change the tag', checking({}, { etag: 'W/"a"' }, { etag: '"a"' })),
  may('RFC 9111 4.3.4', 'a 304 without a tag is about what was asked', checking({}, {}, { etag: '"a"' })),
  must('RFC 9111 4.3.4', 'a 304 about another tag is about nothing we have', {
    answers: [cc('max-age=1', { etag: '"a"' }), { status: 304, fields: { etag: '"b"' } }, cc(FRESH, { etag: '"b"' })],
    requests: [0, 2],
    expect: ['new', 'new after 2'],
  }),
  must('RFC 9111 4.3.4', 'a 304 that forbids keeping is the last of it', {
    answers: [
      cc('max-age=1', { etag: '"a"' }),
      { status: 304, fields: { etag: '"a"', 'cache-control': 'no-store' } },
      FRESH,
    ],
    requests: [0, 2, 0],
    expect: ['new', 'checked', 'new'],
  }),
  must('RFC 9111 4.2.3', 'a 304 brings its own Age', {
    answers: [
      cc('max-age=1', { etag: '"a"' }),
      { status: 304, fields: { etag: '"a"', 'cache-control': FRESH, age: '50' } },
    ],
    requests: [0, 2, 11],
    expect: ['new', 'checked', 'checked'],
  }),
  ...(
    [
      ['If-None-Match', '"a"', '304'],
      ['If-None-Match', 'W/"a"', '304'],
      ['If-None-Match', '"x", "a"', '304'],
      ['If-None-Match', '*', '304'],
      ['If-None-Match', '"x"', 'kept'],
      ['If-None-Match', '"x, a"', 'kept'],
      ['If-Modified-Since', 'Sat, 01 Jan 2000 00:00:00 GMT', '304'],
      ['If-Modified-Since', 'Sun, 02 Jan 2000 00:00:00 GMT', '304'],
      ['If-Modified-Since', 'Fri, 31 Dec 1999 23:59:59 GMT', 'kept'],
      ['If-Modified-Since', 'the other day', 'kept'],
    ] as const
  ).map(([name, value, outcome]) =>
    may('RFC 9111 4.3.2', `${name}: ${value}, answered out of what is fresh`, {
      answers: [cc(FRESH, { etag: '"a"', 'last-modified': 'Sat, 01 Jan 2000 00:00:00 GMT' })],
      requests: [0, asked({ [name]: value }, 1)],
      expect: ['new', outcome],
      shows: { 1: { etag: '"a"', age: '1' } },
    }),
  ),
  must('RFC 9110 13.2.2', 'If-None-Match goes before If-Modified-Since', {
    answers: [cc(FRESH, { etag: '"a"', 'last-modified': 'Sat, 01 Jan 2000 00:00:00 GMT' })],
    requests: [0, asked({ 'If-None-Match': '"x"', 'If-Modified-Since': 'Sun, 02 Jan 2000 00:00:00 GMT' }, 1)],
    expect: ['new', 'kept'],
  }),
  may('RFC 9111 4.3.2', 'without a Last-Modified it is Date that counts', {
    answers: [FRESH],
    requests: [0, asked({ 'If-Modified-Since': new Date(START + 1e11).toUTCString() }, 1)],
    expect: ['new', '304'],
  }),
  must('RFC 9110 13.1.2', 'a 304 to a client that asked is not kept as an answer', {
    answers: [UNCHANGED, FRESH],
    requests: [asked({ 'If-None-Match': '"a"' }), 1],
    expect: ['304 asked', 'new'],
  }),
  may('RFC 9111 4.3.4', 'the condition of a client makes what is kept fresh', {
    answers: [cc('max-age=1', { etag: '"a"' }), { status: 304, fields: { etag: '"a"', 'cache-control': FRESH } }],
    requests: [0, asked({ 'If-None-Match': '"a"' }, 2), 30],
    expect: ['new', '304 asked', 'kept'],
  }),
  ...['If-Match', 'If-Unmodified-Since'].map((name) =>
    must('RFC 9110 13.1', `${name} is for the origin`, {
      answers: [TAGGED],
      requests: [0, asked({ [name]: name === 'If-Match' ? '"a"' : 'Sat, 01 Jan 2000 00:00:00 GMT' }, 1)],
      expect: ['new', 'new'],
      asks: { 1: { [name.toLowerCase()]: /./ } },
    }),
  ),
];

const HEAD = (after = 0): Behaviour['requests'][number] => ({ after, method: 'HEAD' });
const head: readonly Behaviour[] = [
  may('RFC 9110 9.3.2', 'HEAD out of what a GET brought', {
    answers: [TAGGED],
    requests: [0, HEAD(5)],
    expect: ['new', 'kept'],
    shows: { 1: { etag: '"a"', age: '5', 'content-length': /^\d\d$/ } },
  }),
  must('RFC 9110 9.3.2', 'GET is not answered with what HEAD brought', {
    answers: [TAGGED],
    requests: [HEAD(), 1],
    expect: ['new', 'new'],
    shows: { 1: { 'content-length': /^\d\d$/ } },
  }),
  must('RFC 9111 4.3.5', 'a HEAD with another tag', {
    answers: [cc('max-age=9', { etag: '"a"' }), cc('max-age=9', { etag: '"b"' })],
    requests: [0, HEAD(10), 0],
    expect: ['new', 'new', 'new'],
    asks: { 2: { 'if-none-match': undefined } },
  }),
  must('RFC 9111 4.3.5', 'a HEAD with another length', {
    answers: ['max-age=9', { fields: { 'cache-control': 'max-age=9' }, body: 'longer than the one before it was' }],
    requests: [0, HEAD(10), 0],
    expect: ['new', 'new', 'new'],
  }),
];

const toOthers = (method: string, fields: AnswerFields, to: string, status = 200): Row => ({
  answers: [FRESH, with_(fields, status), FRESH],
  requests: [{ to }, { method, after: 1 }, { to, after: 1 }],
  expect: [],
});
const unsafe: readonly Behaviour[] = [
  ...['POST', 'PUT', 'DELETE', 'PATCH', 'REPORT'].map((method) =>
    must('RFC 9111 4.4', `${method} makes what is kept invalid`, {
      answers: [FRESH],
      requests: [0, { method, after: 1 }, 1],
      expect: ['new', 'new', 'new'],
    }),
  ),
  ...['OPTIONS', 'TRACE'].map((method) =>
    may('RFC 9111 4.4', `${method} does not`, {
      answers: [FRESH],
      requests: [0, { method, after: 1 }, 1],
      expect: ['new', 'new', 'kept 1'],
    }),
  ),
  ...[201, 204, 303].map((status) =>
    must('RFC 9111 4.4', `a POST answered by ${status} does`, {
      answers: [FRESH, cc('no-store', {}, status), FRESH],
      requests: [0, { method: 'POST', after: 1 }, 1],
      expect: ['new', 'new', 'new'],
    }),
  ),
  ...[400, 403, 500].map((status) =>
    may('RFC 9111 4.4', `a POST answered by ${status} does not`, {
      answers: [FRESH, cc('no-store', {}, status)],
      requests: [0, { method: 'POST', after: 1 }, 1],
      expect: ['new', 'new', 'kept 1'],
    }),
  ),
  ...['location', 'content-location'].flatMap((name) => [
    must('RFC 9111 4.4', `${name} of the same origin, as a path`, {
      ...toOthers('POST', { [name]: '{path}/b?c' }, '/b?c'),
      expect: ['new', 'new', 'new'],
    }),
    must('RFC 9111 4.4', `${name} of the same origin, in full`, {
      ...toOthers('PUT', { [name]: '{base}{path}/b' }, '/b', 201),
      expect: ['new', 'new', 'new'],
    }),
    must('RFC 9111 4.4', `${name} of another origin is nothing of ours`, {
      ...toOthers('POST', { [name]: 'http://elsewhere.test{path}/b' }, '/b'),
      expect: ['new', 'new', 'kept 1'],
    }),
    may('RFC 9111 4.4', `${name} of a POST that failed`, {
      ...toOthers('POST', { [name]: '{path}/b' }, '/b', 409),
      expect: ['new', 'new', 'kept 1'],
    }),
    may('RFC 9111 4.4', `${name} that is no reference`, {
      ...toOthers('POST', { [name]: 'http://[' }, '/b'),
      expect: ['new', 'new', 'kept 1'],
    }),
  ]),
  must('RFC 9110 9.3.3', 'an answer to POST is not kept for GET', {
    answers: [FRESH],
    requests: [{ method: 'POST' }, 1],
    expect: ['new', 'new'],
  }),
  must('RFC 9110 9.3.3', 'every POST reaches the origin', {
    answers: [FRESH],
    requests: [{ method: 'POST' }, { method: 'POST', after: 1 }],
    expect: ['new', 'new'],
  }),
  must('RFC 9111 2', 'another query is another resource', {
    answers: [FRESH],
    requests: [{ to: '?a' }, { to: '?b' }, { to: '' }, { to: '?a' }],
    expect: ['new', 'new', 'new', 'kept 1'],
  }),
];

const stale: readonly Behaviour[] = [
  may('RFC 5861 3', 'stale while it is being asked about, then the new one', {
    answers: ['max-age=60, stale-while-revalidate=60'],
    requests: [0, 90, 1],
    expect: ['new', 'behind', 'kept'],
  }),
  may('RFC 5861 3', 'stale while it is being asked about, and nothing has changed', {
    answers: [cc('max-age=60, stale-while-revalidate=60', { etag: '"a"' }), UNCHANGED],
    requests: [0, 90, 30],
    expect: ['new', 'behind', 'kept'],
    asks: { 1: { 'if-none-match': '"a"' } },
    shows: { 1: { age: '90' }, 2: { age: '30' } },
  }),
  may('RFC 5861 3', 'the range and conditions of the client are not part of that question', {
    answers: ['max-age=60, stale-while-revalidate=60'],
    requests: [0, asked({ 'If-None-Match': '"x"' }, 90)],
    expect: ['new', 'behind'],
    asks: { 1: { 'if-none-match': undefined } },
  }),
  may('RFC 5861 3', 'an error behind the back is asked about again', {
    answers: ['max-age=60, stale-while-revalidate=60', cc('no-store', {}, 500), FRESH],
    requests: [0, 70, 10, 1],
    expect: ['new', 'behind', 'behind', 'kept'],
  }),
  must('RFC 5861 3', 'not past its time', {
    answers: ['max-age=60, stale-while-revalidate=60'],
    requests: [0, 121],
    expect: ['new', 'new'],
  }),
  must('RFC 5861 3', 'a time that is no number', {
    answers: ['max-age=60, stale-while-revalidate=soon'],
    requests: [0, 61],
    expect: ['new', 'new'],
  }),
  must('RFC 5861 3', 'not where the client wants none', {
    answers: ['max-age=60, stale-while-revalidate=60'],
    requests: [0, asked({ 'Cache-Control': 'no-cache' }, 90)],
    expect: ['new', 'new'],
  }),
  must('RFC 5861 3', 'not where the client wants it no older', {
    answers: ['max-age=60, stale-while-revalidate=60'],
    requests: [0, asked({ 'Cache-Control': 'max-age=60' }, 90)],
    expect: ['new', 'new'],
  }),
  ...[500, 502, 503, 504].map((status) =>
    may('RFC 5861 4', `stale in place of ${status}`, {
      answers: ['max-age=60, stale-if-error=60', cc('no-store', {}, status)],
      requests: [0, 90],
      expect: ['new', 'instead'],
    }),
  ),
  may('RFC 5861 4', 'stale in place of nothing', {
    answers: ['max-age=60, stale-if-error=60', 'dead'],
    requests: [0, 90],
    expect: ['new', 'instead'],
  }),
  may('RFC 5861 4', 'and asked about once the origin is well again', {
    answers: [cc('max-age=60, stale-if-error=60', { etag: '"a"' }), cc('no-store', {}, 503), UNCHANGED],
    requests: [0, 90, 1],
    expect: ['new', 'instead', 'checked 1'],
  }),
  must('RFC 5861 4', 'not past its time', {
    answers: ['max-age=60, stale-if-error=60', cc('no-store', {}, 503)],
    requests: [0, 121],
    expect: ['new', 'new'],
  }),
  must('RFC 5861 4', 'not past its time where the origin is away', {
    answers: ['max-age=60, stale-if-error=60', 'dead'],
    requests: [0, 121],
    expect: ['new', '502 asked'],
  }),
  ...[404, 410, 403].map((status) =>
    must('RFC 5861 4', `${status} is no error of the origin`, {
      answers: ['max-age=60, stale-if-error=60', cc('no-store', {}, status)],
      requests: [0, 90],
      expect: ['new', 'new'],
    }),
  ),
  may('RFC 5861 4', 'where the client says so', {
    answers: [FRESH, cc('no-store', {}, 503)],
    requests: [0, asked({ 'Cache-Control': 'stale-if-error=60' }, 90)],
    expect: ['new', 'instead'],
  }),
  must('RFC 5861 4', 'where the client says so and the origin forbids it', {
    answers: ['max-age=60, must-revalidate', cc('no-store', {}, 503)],
    requests: [0, asked({ 'Cache-Control': 'stale-if-error=600' }, 90)],
    expect: ['new', 'new'],
  }),
  must('RFC 5861 4', 'not where the client wants none', {
    answers: ['max-age=60, stale-if-error=60', cc('no-store', {}, 503)],
    requests: [0, asked({ 'Cache-Control': 'no-cache' }, 90)],
    expect: ['new', 'new'],
  }),
  may('RFC 5861 4', 'an error is an error where nobody says otherwise', {
    answers: [FRESH, cc('no-store', {}, 503)],
    requests: [0, 61],
    expect: ['new', 'new'],
  }),
];

const TARGETED = { cdnCacheControl: true };
const cdn = (value: string, ordinary = 'no-store', fields: AnswerFields = {}): Scripted =>
  cc(ordinary, { 'cdn-cache-control': value, ...fields });
const targeted: readonly Behaviour[] = [
  ...lives('RFC 9213 2.2', 'it goes before Cache-Control', cdn('max-age=60'), 60, TARGETED),
  ...lives('RFC 9213 2.2', 'and before Expires', cdn('max-age=60', 'max-age=9', { expires: '0' }), 60, TARGETED),
  ...lives(
    'RFC 9213 2.2',
    'Expires does not count beside it',
    cdn('public', 'x-own', { expires: inSeconds(60) }),
    0,
    TARGETED,
  ),
  ...lives('RFC 9213 2.2', 'without max-age, that of Cache-Control does not count', cdn('public', FRESH), 0, TARGETED),
  ...lives('RFC 9213 2.1', 'parameters', cdn('max-age=60;a=b;c'), 60, TARGETED),
  ...lives(
    'RFC 9213 2.1',
    'what is no structured field leaves it to Cache-Control',
    cdn('max-age=60, &', 'max-age=9'),
    9,
    TARGETED,
  ),
  ...lives('RFC 9213 2.1', 'a number in quotes is none', cdn('max-age="60"', 'max-age=9'), 9, TARGETED),
  ...lives('RFC 9213 2.1', 'nothing leaves it to Cache-Control', cdn('', 'max-age=9'), 9, TARGETED),
  ...lives(
    'RFC 9213 2.2',
    'on two lines',
    cc('no-store', { 'cdn-cache-control': ['public', 'max-age=60'] }),
    60,
    TARGETED,
  ),
  never('RFC 9213 2.2', 'no-store', cdn('no-store', FRESH), TARGETED),
  never('RFC 9213 2.2', 'private', cdn('private, max-age=60', FRESH), TARGETED),
  ...lives('RFC 9213 2', 'it means nothing to who is not meant', cdn('max-age=60', 'max-age=9'), 9),
  never('RFC 9213 2', 'nor does it allow anything then', cdn('max-age=60', 'no-store')),
];

const fields: readonly Behaviour[] = [
  must('RFC 9111 5.1', 'Age of what is kept', {
    answers: [FRESH],
    requests: [0, 30],
    expect: ['new', 'kept'],
    shows: { 0: { age: undefined }, 1: { age: '30' } },
  }),
  must('RFC 9111 5.1', 'Age on top of the one it came with', {
    answers: [cc(FRESH, { age: '10' })],
    requests: [0, 30],
    expect: ['new', 'kept'],
    shows: { 0: { age: '10' }, 1: { age: '40' } },
  }),
  must('RFC 9110 6.6.1', 'an undated answer gets a Date', {
    answers: [cc(FRESH, { date: undefined })],
    requests: [0, 30],
    expect: ['new', 'kept'],
    shows: { 0: { date: / GMT$/ }, 1: { date: / GMT$/ } },
  }),
  must('RFC 9110 6.6.1', 'a Date stays as it is', {
    answers: [cc(FRESH, { date: 'Wed, 12 Jun 2030 01:02:03 GMT' })],
    requests: [0, 30],
    expect: ['new', 'kept'],
    shows: { 1: { date: 'Wed, 12 Jun 2030 01:02:03 GMT' } },
  }),
  must('RFC 9111 3.1', 'fields of one connection are not kept', {
    answers: [cc(FRESH, { connection: 'x-hop', 'x-hop': '1', 'proxy-authenticate': 'Basic', 'x-own': '2' })],
    requests: [0, 30],
    expect: ['new', 'kept'],
    shows: { 1: { 'x-hop': undefined, 'proxy-authenticate': undefined, 'x-own': '2' } },
  }),
  must('RFC 9111 4', 'what is kept is as it came', {
    answers: [
      cc(FRESH, { 'content-type': 'text/x; a="b"', 'content-language': 'de', link: '</a>; rel=x', 'x-empty': '' }),
    ],
    requests: [0, 30],
    expect: ['new', 'kept'],
    shows: {
      1: { 'content-type': 'text/x; a="b"', 'content-language': 'de', link: '</a>; rel=x', 'x-empty': '', via: /1\.1/ },
    },
  }),
  must('RFC 9111 5.5', 'no Warning', {
    answers: ['max-age=60, stale-if-error=60', 'dead'],
    requests: [0, 90],
    expect: ['new', 'instead'],
    shows: { 1: { warning: undefined, age: '90' } },
  }),
  may('RFC 9211 2', 'what became of it', {
    answers: [TAGGED, UNCHANGED],
    requests: [0, 1, 60],
    expect: ['new', 'kept', 'checked'],
    shows: {
      0: { 'cache-status': 'peerdist; fwd=uri-miss; stored' },
      1: { 'cache-status': 'peerdist; hit' },
      2: { 'cache-status': 'peerdist; fwd=stale; fwd-status=304' },
    },
  }),
  may('RFC 9112 7.1', 'a body without a length', {
    answers: [{ fields: { 'cache-control': FRESH }, chunked: true }],
    requests: [0, 1],
    expect: ['new', 'kept'],
    shows: { 1: { 'content-length': /^\d\d$/ } },
  }),
  may('RFC 9110 8.6', 'an empty body', {
    answers: [{ fields: { 'cache-control': FRESH }, body: '' }],
    requests: [0, 1],
    expect: ['new', 'kept'],
    shows: { 1: { 'content-length': '0' } },
  }),
  may('RFC 9111 3.4', 'a body longer than those that are kept', {
    options: { maxContentBytes: 10 },
    answers: [FRESH],
    requests: [0, 1],
    expect: ['new', 'new'],
  }),
];

const tables = {
  lifetimes,
  codes,
  directives,
  requests,
  variants,
  personal,
  validation,
  head,
  unsafe,
  stale,
  targeted,
  fields,
};

const failed = new Set<Behaviour>();
for (const mode of ['forward proxy', 'gateway'] as const) {
  await t.test(mode, async (test) => {
    const table = await CacheTable.start(test, mode);
    for (const [topic, rows] of Object.entries(tables)) {
      await test.test(topic, async (sub) => {
        for (const row of rows) {
          const outcomes = await table.outcomes(row);
          if (!sub.same(outcomes, row.expect, `${row.spec}, ${row.name}`)) failed.add(row);
        }
      });
    }
    test.same(table.failures, [], 'nothing failed that nobody saw');
  });
}
const rows = Object.values(tables).flat();
const count = (level: Behaviour['level']): number =>
  rows.filter((row) => row.level === level && !failed.has(row)).length;
t.comment(
  `HTTP cache: ${rows.length - failed.size} of ${rows.length} behaviours (required ${count('required')}, optimal ${count('optimal')})`,
);

// --- What takes more than one request at a time ----------------------------------------------------------------------------------------

const BODY = seededBytes(3, 200_000);
const wholes = (answers: readonly Answer[], body: Uint8Array = BODY): number =>
  answers.filter((answer) => answer.status === 200 && answer.complete && same(answer.body, body)).length;

await t.test('one question behind the back of many clients, and none of them waits for it', async (test) => {
  const gate = new Gate();
  const clock = new ManualClock();
  const changed = seededBytes(4, 100_000);
  const headers = { 'cache-control': 'max-age=60, stale-while-revalidate=60' };
  const origin = await Origin.start(test, { '/f': { body: BODY, etag: '"a"', headers } });
  const branch = await startBranch(test, { clock });
  const get = (fields = {}): Promise<Answer> => ask(branch.port, `${origin.url}/f`, { fields });
  await get();
  await branch.remembered();
  origin.resources.set('/f', { body: changed, etag: '"b"', headers, beforeHead: gate.passed });
  clock.advance(90_000);
  const part = await get({ Range: 'bytes=5-9', 'If-Range': '"a"', 'If-None-Match': '"x"' });
  test.same([part.status, same(part.body, BODY.subarray(5, 10))], [206, true], 'a range too');
  test.equal(
    wholes(await Promise.all(Array.from({ length: 20 }, () => get()))),
    20,
    'before the origin has said a word',
  );
  await until(() => origin.requests.length === 2, 'the origin is asked');
  const { 'if-none-match': tag, range, 'if-range': ifRange } = origin.requests[1]?.headers ?? {};
  test.same([tag, range, ifRange], ['"a"', undefined, undefined], 'about all of it');
  gate.open();
  await branch.remembered(2);
  test.equal(wholes([await get()], changed), 1, 'then everybody gets the new one');
  test.equal(origin.requests.length, 2);
  test.same(branch.observations.failures, []);
});

await t.test('many clients at once, and what they share', async (test) => {
  for (const [what, headers, chunked, shares] of [
    ['a body with a length', { 'cache-control': 'max-age=60' }, false, true],
    ['a body without one', { 'cache-control': 'max-age=60' }, true, true],
    ['private', { 'cache-control': 'private' }, false, false],
    ['no-store', { 'cache-control': 'no-store' }, false, false],
    ['neither lifetime nor validator', {}, false, false],
  ] as const) {
    const head = new Gate();
    const rest = new Gate();
    const file = { body: BODY, headers, chunked, beforeHead: head.passed, firstBytes: 70_000, afterFirst: rest.passed };
    const origin = await Origin.start(test, { '/f': file });
    const branch = await startBranch(test, { clock: new ManualClock() });
    const get = (): Promise<Answer> => ask(branch.port, `${origin.url}/f`);
    const early = Array.from({ length: 8 }, get);
    await until(() => branch.received.length === 8, 'all are there');
    head.open();
    await until(() => (origin.requests[0]?.sent ?? 0) >= 70_000, 'the body has begun');
    const late = Array.from({ length: 8 }, get);
    await until(() => branch.received.length === 16, 'and these');
    rest.open();
    test.equal(wholes(await Promise.all([...early, ...late])), 16, what);
    test.equal(origin.requests.length, shares ? 1 : 16, `${what}: ${shares ? 'one body' : 'one for each'}`);
    test.same([branch.observations.failures, origin.errors], [[], []]);
  }
});

await t.test('many clients of what is stale ask one question', async (test) => {
  const clock = new ManualClock();
  const answers: Record<string, OriginHandler> = {};
  const gates = { '/same': new Gate(), '/changed': new Gate(), '/away': new Gate() };
  const changed = seededBytes(4, 100_000);
  const headers = { 'cache-control': 'max-age=60' };
  answers['/away'] = async (_request, response) => {
    await gates['/away'].passed;
    response.destroy();
  };
  const origin = await Origin.start(test);
  const branch = await startBranch(test, { clock });
  const get = (path: string): Promise<Answer> => ask(branch.port, `${origin.url}${path}`);
  for (const path of Object.keys(gates)) {
    origin.resources.set(path, { body: BODY, etag: '"a"', headers });
    await get(path);
  }
  await branch.remembered(3);
  clock.advance(61_000);
  for (const [path, gate] of Object.entries(gates)) {
    const isChanged = path === '/changed';
    const file = {
      body: isChanged ? changed : BODY,
      etag: isChanged ? '"b"' : '"a"',
      headers,
      beforeHead: gate.passed,
    };
    origin.resources.set(path, answers[path] ?? file);
    const before = branch.received.length;
    const clients = Array.from({ length: 8 }, () => get(path));
    await until(() => branch.received.length === before + 8, 'all are there');
    await until(() => origin.asked(path).length === 2, 'the origin is asked');
    await turns();
    gate.open();
    test.equal(wholes(await Promise.all(clients), isChanged ? changed : BODY), 8, path);
    if (path !== '/away') test.equal(origin.asked(path).length, 2, `${path}: one question`);
  }
  test.same(branch.observations.failures, []);
});

await t.test('an answer that cannot be kept takes the place of what was', async (test) => {
  const clock = new ManualClock();
  const origin = await Origin.start(test, {
    '/f': { body: 'old', etag: '"a"', headers: { 'cache-control': 'max-age=60' } },
  });
  const branch = await startBranch(test, { clock });
  const { url } = origin;
  const get = (): Promise<Answer> => ask(branch.port, `${url}/f`);
  await get();
  await branch.remembered();
  clock.advance(61_000);
  origin.resources.set('/f', { body: 'new', etag: '"b"', headers: { 'cache-control': 'private' } });
  test.equal((await get()).body.toString(), 'new');
  origin.server.closeAllConnections();
  origin.server.close();
  test.equal((await get()).status, 502, 'the old one is not given away any more, whatever happens');
});

await t.test('a flood of queries that differ each time', async (test) => {
  const clock = new ManualClock();
  const origin = await Origin.start(test);
  const branch = await startBranch(test, { clock });
  const connection = await Connection.open(branch.port);
  test.teardown(() => connection.close());
  const get = async (path: string): Promise<string | undefined> => {
    origin.resources.set(path, (request, response, record) =>
      sendFile({ body: path, headers: { 'cache-control': 'max-age=6000' } }, request, response, record),
    );
    connection.send(requestText(branch.port, `${origin.url}${path}`));
    const { body, headers } = await connection.answer();
    return body.toString() === path ? headers['cache-status'] : 'WRONG';
  };
  const miss = 'peerdist; fwd=uri-miss; stored';
  for (let index = 0; index < 1_000; index += 1) {
    if ((await get(`/f?${index}`)) !== miss) test.fail(`${index}`);
  }
  await branch.remembered(1_000);
  test.equal(await get('/f?1'), 'peerdist; hit', 'what came before the limit is kept');
  test.same(
    [await get('/f?new'), await get('/f?new'), await get('/f?new')],
    ['peerdist; fwd=uri-miss', miss, 'peerdist; hit'],
    'the second time',
  );
  test.same([await get('/g'), await get('/g')], [miss, 'peerdist; hit'], 'what has no query is kept as ever');
  clock.advance(10 * 60_000);
  test.same(
    [await get('/f?later'), await get('/f?later')],
    [miss, 'peerdist; hit'],
    'and all is well again some time later',
  );
  test.same(branch.observations.failures, []);
});

await t.test('who counts the queries remembers only so much', async (test) => {
  const clock = new ManualClock();
  const guard = new QueryGuard(clock);
  const admits = (authority: string, target: string, scheme = 'http'): boolean =>
    guard.admits({ scheme, authority, target } as ProxyRequest);
  const fill = (authority: string): void => {
    for (let index = 0; index < 1_000; index += 1) admits(authority, `/?${index}`);
  };
  fill('flooded');
  test.notOk(admits('flooded', '/?x'), 'past the limit');
  test.ok(admits('flooded', '/x'), 'no query, no limit');
  test.ok(admits('other', '/?x'), 'each origin has its own');
  test.ok(admits('flooded', '/?x', 'https'), 'and each scheme');
  test.ok(admits('flooded', '/?x'), 'asked for again');
  test.notOk(admits('flooded', '/?x'), 'and that was that');

  test.notOk(admits('flooded', '/?first'));
  for (let index = 0; index < 4_096; index += 1) admits('flooded', `/?once${index}`);
  test.notOk(admits('flooded', '/?first'), 'so long ago that nobody knows of it');

  for (let index = 0; index < 1_022; index += 1) admits(`host${index}`, '/?');
  test.notOk(admits('flooded', '/?y'), 'as many origins as are remembered');
  for (let index = 0; index < 1_024; index += 1) admits(`another${index}`, '/?');
  test.ok(admits('flooded', '/?y'), 'the one that was quiet for longest is forgotten');

  fill('patient');
  clock.advance(10 * 60_000 - 1);
  test.notOk(admits('patient', '/?x'));
  clock.advance(1);
  test.ok(admits('patient', '/?z'), 'a new window');
});
// --- Bounds ------------------------------------------------------------------------------------------------------------------------------

await t.test('what is still coming is given to nobody whose lifetime it has outlived', async (test) => {
  const rest = new Gate();
  const clock = new ManualClock();
  const headers = { 'cache-control': 'max-age=1, must-revalidate' };
  const file = { body: BODY, etag: '"a"', headers, firstBytes: 70_000, afterFirst: rest.passed };
  const origin = await Origin.start(test, { '/f': file });
  const branch = await startBranch(test, { clock });
  const url = `${origin.url}/f`;
  const first = ask(branch.port, url);
  await until(() => branch.observations.bytes('wan', { kind: 'plain' }) === 70_000, 'it is coming');
  clock.advance(500);
  const joined = ask(branch.port, url);
  await until(() => branch.observations.count('collapsed') === 1, 'in time it is joined');
  clock.advance(3_600_000);
  const late = ask(branch.port, url);
  await until(() => origin.requests.length === 2, 'later the origin is asked');
  test.equal(origin.requests[1]?.headers['if-none-match'], '"a"');
  rest.open();
  test.equal(wholes(await Promise.all([first, joined, late])), 3);
});

await t.test('a body without a length is kept up to the limit, and passed on beyond it', async (test) => {
  const origin = await Origin.start(test, {
    '/f': { body: BODY, etag: '"a"', chunked: true, headers: { 'cache-control': 'max-age=60' } },
  });
  for (const [maxContentBytes, requests] of [
    [BODY.byteLength, 1],
    [BODY.byteLength - 1, 3],
  ] as const) {
    const branch = await startBranch(test, { maxContentBytes });
    const before = origin.requests.length;
    const get = (): Promise<Answer> => ask(branch.port, `${origin.url}/f`);
    const answers = [await get()];
    if (requests === 1) await branch.remembered();
    else await until(() => branch.observations.count('exchange') === 1, 'the exchange is over');
    answers.push(await get(), await get());
    test.equal(wholes(answers), 3);
    test.equal(origin.requests.length - before, requests);
  }
});

await t.test('a body that nobody waited for is not joined when it has been given up', async (test) => {
  const never = new Gate();
  const clock = new ManualClock();
  const body = seededBytes(94, 6_000_000);
  const file = { body, etag: '"a"', chunked: true, headers: { 'cache-control': 'max-age=60' } };
  const origin = await Origin.start(test, { '/f': { ...file, firstBytes: 5_900_000, afterFirst: never.passed } });
  const branch = await startBranch(test, { clock, lingerMs: 1_000 });
  const first = await begin(branch.port, `${origin.url}/f`);
  await until(() => branch.observations.bytes('wan', { kind: 'plain' }) === 5_900_000, 'most of it has come');
  first.leave();
  await until(() => clock.pending > 0, 'nobody reads');
  origin.resources.set('/f', file);
  clock.advance(1_000);
  // What came of it is only now being described.
  const answer = await ask(branch.port, `${origin.url}/f`);
  test.same([answer.status, answer.complete, same(answer.body, body)], [200, true, true]);
});

await t.test('what is fetched behind the back of clients has an end', async (test) => {
  const clock = new ManualClock();
  const headers = { 'cache-control': 'max-age=1, stale-while-revalidate=1000' };
  const origin = await Origin.start(test, { '/f': { body: 'old', etag: '"a"', headers } });
  const branch = await startBranch(test, { clock });
  const url = `${origin.url}/f`;
  await ask(branch.port, url);
  await branch.remembered();
  const never = new Gate();
  origin.resources.set('/f', { body: BODY, etag: '"b"', headers, firstBytes: 1_000, afterFirst: never.passed });
  clock.advance(2_000);
  test.equal((await ask(branch.port, url)).body.toString(), 'old');
  await until(() => branch.observations.bytes('wan', { kind: 'plain' }) === 1_003, 'the new one is coming');
  const isLeft = (): boolean => {
    clock.advance(60_000);
    return origin.requests[1]?.closed === true;
  };
  await until(isLeft, 'the origin is left');
});

await t.test('a date is no name for what one user got', async (test) => {
  const file = { body: 'of a', lastModified: inThePast(1), headers: { 'cache-control': 'no-cache' } };
  const origin = await Origin.start(test, { '/me': file });
  const branch = await startBranch(test);
  const get = (user: string): Promise<Answer> =>
    ask(branch.port, `${origin.url}/me`, { fields: { Cookie: `user=${user}` } });
  test.equal((await get('a')).body.toString(), 'of a');
  origin.resources.set('/me', { ...file, body: 'of b', lastModified: inThePast(2) });
  test.equal((await get('b')).body.toString(), 'of b');
  test.equal(origin.requests[1]?.headers['if-modified-since'], undefined);
});

await t.test('a cookie of a 304 is for the client that asked', async (test) => {
  const clock = new ManualClock();
  const headers = { 'cache-control': 'max-age=60' };
  const origin = await Origin.start(test, {
    '/f': { body: BODY, etag: '"a"', headers, headers304: { ...headers, 'set-cookie': ['seen=1'] } },
  });
  const branch = await startBranch(test, { clock });
  const get = (): Promise<Answer> => ask(branch.port, `${origin.url}/f`);
  await get();
  await branch.remembered();
  clock.advance(61_000);
  const [checked, kept] = [await get(), await get()];
  test.same([checked.headers['set-cookie'], kept.headers['set-cookie']], ['seen=1', undefined]);
  test.equal(wholes([checked, kept]), 2);
  test.equal(origin.requests.length, 2);
});

/** A date so many days ago. */
function inThePast(days: number): string {
  return new Date(START - days * 86_400_000).toUTCString();
}
