/** RFC 9110 and 9111 as far as a proxy needs them: ranges, validators, codings, connection fields, Vary. */
import * as fc from 'fast-check';
import t from 'tap';
import { type ByteRange, rangeEnd } from '../../lib/bytes/index.ts';
import {
  acceptsCoding,
  addPeerDist,
  addToList,
  canName,
  endToEndFields,
  fieldValue,
  formatContentRange,
  formatRange,
  hasConditions,
  type HeaderFields,
  ifRangeHolds,
  ifRangeValue,
  isNotModified,
  isStrongTag,
  listMembers,
  nearestCacheStatus,
  MAX_RANGES,
  parseCacheControl,
  parseContentRange,
  parseRange,
  removeFromList,
  removePeerDist,
  resolveRanges,
  sameBytes,
  selectingValues,
  varyNames,
  withoutFields,
} from '../../lib/http/index.ts';

/** Ranges of a content of 1000 bytes as `offset+length`; `ignored` for a field that is to be ignored, `416` for none satisfiable. */
function ranges(value: string | undefined, length = 1_000): string {
  const specs = parseRange(value);
  if (specs === undefined) return 'ignored';
  const resolved = resolveRanges(specs, length);
  return resolved.length === 0 ? '416' : resolved.map((range) => `${range.offset}+${range.length}`).join(' ');
}

await t.test('Range, parsed and resolved', async (test) => {
  const cases: readonly (readonly [string, string, number?])[] = [
    ['bytes=0-499', '0+500'],
    ['bytes=500-999', '500+500'],
    ['bytes=0-0', '0+1'],
    ['bytes=999-999', '999+1'],
    ['bytes=-500', '500+500'],
    ['bytes=-1', '999+1'],
    ['bytes=-1000', '0+1000'],
    ['bytes=-5000', '0+1000'],
    ['bytes=-0', '416'],
    ['bytes=500-', '500+500'],
    ['bytes=0-', '0+1000'],
    ['bytes=999-', '999+1'],
    ['bytes=1000-', '416'],
    ['bytes=1000-2000', '416'],
    ['bytes=900-2000', '900+100'],
    ['bytes=0-999999999999999', '0+1000'],
    ['bytes=999999999999999-', '416'],
    ['bytes=0-0,-1', '0+1 999+1'],
    ['bytes=-1,0-0', '999+1 0+1'],
    ['bytes=500-600,100-200', '500+101 100+101'],
    ['bytes=0-99,100-199', '0+100 100+100'],
    ['bytes=0-100,100-199', '0+200'],
    ['bytes=100-199,0-150', '0+200'],
    ['bytes=0-999,0-999,0-999', '0+1000'],
    ['bytes=0-10,5-20,300-310', '0+21 300+11'],
    ['bytes=0-10,2000-3000', '0+11'],
    ['bytes=2000-3000,-0', '416'],
    ['bytes= 0-499 , ,, 600-699', '0+500 600+100'],
    ['BYTES=0-1', '0+2'],
    [' bytes=0-1 ', '0+2'],
    ['bytes=', 'ignored'],
    ['bytes=,', 'ignored'],
    ['bytes=-', 'ignored'],
    ['bytes=5', 'ignored'],
    ['bytes=5-4', 'ignored'],
    ['bytes=0-1,5-4', 'ignored'],
    ['bytes=a-b', 'ignored'],
    ['bytes=0x10-20', 'ignored'],
    ['bytes=1e3-', 'ignored'],
    ['bytes=+1-2', 'ignored'],
    ['bytes=1 - 2', 'ignored'],
    ['bytes=--5', 'ignored'],
    ['bytes=1-2-3', 'ignored'],
    ['bytes 0-499', 'ignored'],
    ['items=0-5', 'ignored'],
    ['', 'ignored'],
    ['bytes=0-', '416', 0],
    ['bytes=0-0', '416', 0],
    ['bytes=-5', '416', 0],
    ['bytes=0-', '0+1', 1],
  ];
  for (const [value, expected, length] of cases) test.equal(ranges(value, length), expected, JSON.stringify(value));
  test.equal(ranges(undefined), 'ignored');
});

await t.test('Range, numbers that nothing can be computed with are very large ones', async (test) => {
  const huge = '9'.repeat(20);
  for (const [value, expected] of [
    [`bytes=${huge}-`, '416'],
    [`bytes=${huge}-${huge}`, '416'],
    [`bytes=5-${huge}`, '5+995'],
    [`bytes=-${huge}`, '0+1000'],
    [`bytes=0-9,${huge}-,990-${huge}`, '0+10 990+10'],
    [`bytes=${huge}-5`, 'ignored'],
    [`bytes=${huge}-${'9'.repeat(19)}8`, 'ignored'],
    [`bytes=${'9'.repeat(16)}-${huge}`, '416'],
    [`bytes=${'9'.repeat(5_000)}-`, '416'],
    [`bytes=0-${'9'.repeat(5_000)}`, '0+1000'],
    [`bytes=-${'9'.repeat(5_000)}`, '0+1000'],
    [`bytes=${'0'.repeat(30)}5-${'0'.repeat(40)}9`, '5+5'],
    [`bytes=${'0'.repeat(30)}-0`, '0+1'],
    [`bytes=-${'0'.repeat(30)}`, '416'],
    ['bytes=9007199254740991-9007199254740993', '416'],
  ] as const)
    test.equal(ranges(value), expected, value.length > 60 ? `${value.slice(0, 30)}…` : value);
  for (const value of [`bytes=${huge}-${huge}`, `bytes=-${huge}`])
    for (const { first, last } of parseRange(value) ?? [])
      for (const bound of [first, last]) test.ok(bound === undefined || Number.isSafeInteger(bound), 'and stay exact');
});

await t.test('Range, as many as the limit and one more', async (test) => {
  const many = (count: number): string =>
    `bytes=${Array.from({ length: count }, (_, index) => `${2 * index}-${2 * index}`).join()}`;
  test.equal(parseRange(many(MAX_RANGES))?.length, MAX_RANGES);
  test.equal(parseRange(many(MAX_RANGES + 1)), undefined);
  test.equal(parseRange('bytes=0-1,3-4', 1), undefined);
  test.equal(parseRange(`bytes=${','.repeat(100_000)}0-1`)?.length, 1, 'empty members are none');
});

await t.test('whatever is asked, no byte twice and none outside', async (test) => {
  const bound = fc.oneof(fc.constant(''), fc.integer({ min: 0, max: 1_200 }).map(String));
  const value = fc
    .array(fc.tuple(bound, bound), { minLength: 1, maxLength: 8 })
    .map((parts) => `bytes=${parts.map((part) => part.join('-')).join()}`);
  fc.assert(
    fc.property(value, fc.integer({ min: 0, max: 1_000 }), (field, length) => {
      const specs = parseRange(field);
      if (specs === undefined) return true;
      const resolved = resolveRanges(specs, length);
      const taken = new Set<number>();
      for (const range of resolved) {
        if (range.length < 1 || range.offset < 0 || rangeEnd(range) > length) return false;
        for (let at = range.offset; at < rangeEnd(range); at += 1) {
          if (taken.has(at)) return false;
          taken.add(at);
        }
      }
      for (const { first, last } of specs) {
        const from = first ?? Math.max(0, length - (last as number));
        const to = first === undefined || last === undefined ? length - 1 : Math.min(last, length - 1);
        for (let at = from; at <= to; at += 1)
          if (!taken.delete(at) && !resolved.some((r) => at >= r.offset && at < rangeEnd(r))) return false;
      }
      return taken.size === 0;
    }),
    { numRuns: 2_000, seed: 3 },
  );
  fc.assert(
    fc.property(fc.string(), (text) => parseRange(`bytes=${text}`) !== null),
    { numRuns: 500, seed: 4 },
  );
  test.pass('ranges cover exactly what was asked');
});

await t.test('Content-Range', async (test) => {
  const cases: readonly (readonly [string, { range: ByteRange; total: number | undefined } | undefined])[] = [
    ['bytes 0-499/1234', { range: { offset: 0, length: 500 }, total: 1_234 }],
    ['bytes 1233-1233/1234', { range: { offset: 1_233, length: 1 }, total: 1_234 }],
    ['bytes 0-0/1', { range: { offset: 0, length: 1 }, total: 1 }],
    ['bytes 5-9/*', { range: { offset: 5, length: 5 }, total: undefined }],
    ['Bytes 5-9/10', { range: { offset: 5, length: 5 }, total: 10 }],
    ['bytes 0-499/499', undefined],
    ['bytes 5-4/10', undefined],
    ['bytes */1234', undefined],
    ['bytes 0-/1234', undefined],
    ['bytes -5/1234', undefined],
    ['bytes=0-5/10', undefined],
    ['items 0-5/10', undefined],
    ['bytes 0-5', undefined],
    ['bytes 0-99999999999999999999/*', undefined],
    ['', undefined],
  ];
  for (const [value, expected] of cases) test.same(parseContentRange(value), expected, JSON.stringify(value));
  test.equal(parseContentRange(undefined), undefined);
  test.equal(formatContentRange(undefined, 1_234), 'bytes */1234');
  test.equal(formatRange({ offset: 5, length: 1 }), 'bytes=5-5');
  const number = fc.integer({ min: 0, max: 2 ** 40 });
  fc.assert(
    fc.property(number, fc.integer({ min: 1, max: 2 ** 40 }), number, (offset, length, more) => {
      const total = offset + length + more;
      const back = parseContentRange(formatContentRange({ offset, length }, total));
      const asked = parseRange(formatRange({ offset, length })) ?? [];
      const [resolved] = resolveRanges(asked, total);
      return (
        back?.total === total &&
        [back.range, resolved].every((range) => range?.offset === offset && range.length === length)
      );
    }),
    { seed: 5 },
  );
});

const DATE = 'Tue, 15 Nov 1994 12:45:26 GMT';
const LATER = 'Wed, 16 Nov 1994 12:45:26 GMT';

await t.test('validators', async (test) => {
  for (const tag of ['"a"', '""', '"a-b_c!"', '"\xfc"']) test.ok(isStrongTag(tag), tag);
  for (const tag of ['W/"a"', 'w/"a"', 'a', '"a', 'a"', '"a"b"', '"a b"', ' "a"', '"a\n"', '', undefined]) {
    test.notOk(isStrongTag(tag), String(tag));
  }
  const state = (
    etag?: string,
    lastModified?: string,
  ): { etag: string | undefined; lastModified: string | undefined } => ({ etag, lastModified });
  const strong = state('"1"', DATE);
  const weak = state('W/"1"', DATE);
  const dated = state(undefined, DATE);
  const nothing = state();

  test.same([strong, weak, dated, nothing].map(canName), [true, false, true, false], 'a weak tag names nothing');
  test.ok(sameBytes(strong, state('"1"', LATER)), 'tags decide over dates');
  test.notOk(sameBytes(strong, state('"2"', DATE)));
  test.notOk(sameBytes(weak, weak), 'a weak tag is not even equal to itself');
  test.notOk(sameBytes(strong, state('W/"1"', DATE)));
  test.notOk(sameBytes(strong, dated), 'a tag on one side only');
  test.notOk(sameBytes(dated, strong));
  test.ok(sameBytes(dated, dated));
  test.notOk(sameBytes(dated, state(undefined, LATER)));
  test.notOk(sameBytes(nothing, nothing));

  test.same([strong, weak, dated, nothing].map(ifRangeValue), ['"1"', DATE, DATE, undefined]);
  test.ok(ifRangeHolds(undefined, nothing), 'no If-Range always holds');
  test.ok(ifRangeHolds('"1"', strong));
  test.notOk(ifRangeHolds('"2"', strong));
  test.notOk(ifRangeHolds('W/"1"', weak), 'strong comparison');
  test.notOk(ifRangeHolds('W/"1"', strong));
  test.notOk(ifRangeHolds('"1"', weak));
  test.notOk(ifRangeHolds('"1"', nothing));
  test.ok(ifRangeHolds(DATE, dated));
  test.notOk(ifRangeHolds(LATER, dated), 'a later date is another state');
  test.notOk(ifRangeHolds(DATE, state('"1"')));
  test.notOk(ifRangeHolds('', nothing), 'an empty field is no validator');

  for (const name of ['if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since']) {
    test.ok(hasConditions({ [name]: '' }), name);
  }
  test.notOk(hasConditions({ 'if-range': '"1"', range: 'bytes=0-1' }));
});

await t.test('304: If-None-Match first, else If-Modified-Since', async (test) => {
  const held = { etag: '"a"', lastModified: DATE };
  const cases: readonly (readonly [HeaderFields, boolean, string])[] = [
    [{}, false, 'no condition'],
    [{ 'if-none-match': '"a"' }, true, 'the tag'],
    [{ 'if-none-match': '"b"' }, false, 'another tag'],
    [{ 'if-none-match': 'W/"a"' }, true, 'weak comparison'],
    [{ 'if-none-match': '"b", "a"' }, true, 'a list'],
    [{ 'if-none-match': '"b",W/"c" ,  W/"a"' }, true, 'a list with weak tags'],
    [{ 'if-none-match': ['"b"', '"a"'] }, true, 'several lines'],
    [{ 'if-none-match': '"b, "c"' }, false, 'a broken list'],
    [{ 'if-none-match': '"x,a", "b"' }, false, 'a comma inside a tag'],
    [{ 'if-none-match': 'a' }, false, 'no quotes'],
    [{ 'if-none-match': '' }, false, 'an empty list'],
    [{ 'if-none-match': '*' }, true, '*'],
    [{ 'if-none-match': ' * ' }, true, '* with space'],
    [{ 'if-modified-since': DATE }, true, 'the date'],
    [{ 'if-modified-since': LATER }, true, 'a later date'],
    [{ 'if-modified-since': 'Mon, 14 Nov 1994 12:45:26 GMT' }, false, 'an earlier date'],
    [{ 'if-modified-since': 'yesterday' }, false, 'no date'],
    [{ 'if-none-match': '"b"', 'if-modified-since': LATER }, false, 'If-None-Match wins'],
    [{ 'if-none-match': '"a"', 'if-modified-since': 'Mon, 14 Nov 1994 12:45:26 GMT' }, true, 'both ways'],
  ];
  for (const [headers, expected, name] of cases) test.equal(isNotModified(headers, held), expected, name);
  test.ok(isNotModified({ 'if-none-match': '"a"' }, { etag: 'W/"a"', lastModified: undefined }), 'a weak tag held');
  test.notOk(isNotModified({ 'if-none-match': '"a"' }, { etag: undefined, lastModified: DATE }));
  test.notOk(isNotModified({ 'if-modified-since': LATER }, { etag: '"a"', lastModified: undefined }), 'no date held');
});

await t.test('Accept-Encoding', async (test) => {
  const cases: readonly (readonly [string | undefined, string, string])[] = [
    // what the client sent, what goes on with peerdist, what goes on without
    [undefined, 'identity, peerdist', 'identity'],
    ['', 'identity, peerdist', 'identity'],
    [' , ', 'identity, peerdist', 'identity'],
    ['gzip', 'gzip, peerdist', 'gzip'],
    ['gzip, deflate, br', 'gzip, deflate, br, peerdist', 'gzip, deflate, br'],
    ['gzip;q=0.5, *;q=0', 'gzip;q=0.5, *;q=0, peerdist', 'gzip;q=0.5, *;q=0'],
    ['*', '*, peerdist', '*'],
    ['peerdist', 'peerdist', 'identity'],
    ['gzip, peerdist', 'gzip, peerdist', 'gzip'],
    ['PeerDist;q=0.5, gzip', 'PeerDist;q=0.5, gzip', 'gzip'],
    ['gzip, peerdist;q=0', 'gzip, peerdist', 'gzip'],
    [',gzip,,peerdist,', ',gzip,,peerdist,', 'gzip'],
    ['peerdist, peerdist;q=0.1', 'peerdist, peerdist;q=0.1', 'identity'],
    ['xpeerdist', 'xpeerdist, peerdist', 'xpeerdist'],
  ];
  for (const [value, added, removed] of cases) {
    test.equal(addPeerDist(value), added, `${value}, added`);
    test.equal(removePeerDist(value), removed, `${value}, removed`);
    test.ok(acceptsCoding(addPeerDist(value), 'peerdist'));
    test.notOk(acceptsCoding(removePeerDist(value), 'peerdist'));
  }
  const weights: readonly (readonly [string, boolean])[] = [
    ['gzip', true],
    ['GZIP', true],
    ['gzip;q=1', true],
    ['gzip; q=0.001', true],
    ['gzip;Q=0', false],
    ['gzip;q=0', false],
    ['gzip;q=0.0', false],
    ['gzip;q=', false],
    ['gzip;q=-1', false],
    ['gzip;q=many', false],
    ['gzip;level=9;q=0', false],
    ['*', false],
    ['gzipx', false],
  ];
  for (const [value, accepted] of weights) test.equal(acceptsCoding(value, 'gzip'), accepted, value);
  test.notOk(acceptsCoding(undefined, 'gzip'));
});

await t.test('fields of one connection stay behind', async (test) => {
  const hopByHop = {
    connection: 'keep-alive, X-Private',
    'keep-alive': 'timeout=5',
    'proxy-connection': 'keep-alive',
    'proxy-authorization': 'Basic x',
    'proxy-authenticate': 'Basic',
    te: 'trailers',
    trailer: 'Digest',
    'transfer-encoding': 'chunked',
    upgrade: 'websocket',
    'http2-settings': 'x',
    expect: '100-continue',
  };
  const endToEnd = { host: 'example.com', accept: '*/*', 'content-length': '5', 'set-cookie': ['a=1', 'b=2'] };
  test.same(endToEndFields({ ...hopByHop, 'x-private': '1', ...endToEnd }), endToEnd);
  test.same(endToEndFields({ connection: ['close', 'X-One , x-two'], 'x-one': '1', 'x-two': '2', 'x-three': '3' }), {
    'x-three': '3',
  });
  for (const connection of ['close', 'keep-alive', 'Keep-Alive', '', ',', 'close, ,keep-alive']) {
    test.same(endToEndFields({ connection, 'x-a': '1' }), { 'x-a': '1' }, connection);
  }

  // Request smuggling by nomination: what frames, routes, conditions or authorises a message cannot be taken away.
  const kept = {
    host: 'example.com',
    'content-length': '5',
    'content-type': 'text/plain',
    'content-encoding': 'peerdist',
    'content-range': 'bytes 0-4/10',
    range: 'bytes=0-4',
    'if-range': '"a"',
    'if-match': '"a"',
    'if-none-match': '"a"',
    'if-modified-since': DATE,
    'if-unmodified-since': DATE,
    authorization: 'Basic x',
    cookie: 'a=1',
    'set-cookie': ['a=1'],
    'cache-control': 'no-store',
    pragma: 'no-cache',
    vary: 'cookie',
    etag: '"a"',
    'last-modified': DATE,
    expires: DATE,
    date: DATE,
    age: '5',
    via: '1.1 a',
    'accept-encoding': 'peerdist',
    'x-p2p-peerdist': 'Version=1.1',
    'x-p2p-peerdistex': 'MaxContentInformation=2.0',
    'x-forwarded-for': '10.0.0.1',
  };
  const nominateAll = Object.keys({ ...kept, 'x-private': '' })
    .map((name) => name.toUpperCase())
    .join(', ');
  test.same(endToEndFields({ ...kept, 'x-private': '1', connection: nominateAll }), kept);
  const headers = { connection: 'x-a', 'x-a': '1' };
  endToEndFields(headers);
  test.same(headers, { connection: 'x-a', 'x-a': '1' }, 'the argument is left alone');
});

await t.test('Vary', async (test) => {
  test.same(varyNames({}), []);
  test.same(varyNames({ vary: 'Cookie, accept-language,COOKIE' }), ['accept-language', 'cookie'], 'sorted, once each');
  test.same(varyNames({ vary: ['Origin', 'Accept'] }), ['accept', 'origin']);
  test.same(
    varyNames({ vary: 'Accept-Encoding, X-P2P-PeerDist, X-P2P-PeerDistEx' }),
    ['accept-encoding'],
    'peerdist negotiation selects no content',
  );
  for (const vary of ['*', 'Cookie, *', ' * ', '*,*']) test.equal(varyNames({ vary }), undefined, `Vary: ${vary}`);

  const key = (headers: HeaderFields): string => selectingValues(['accept-language', 'cookie'], headers);
  const base = key({ 'accept-language': 'de', cookie: 'a=1' });
  test.equal(key({ 'accept-language': ' de ', cookie: 'a=1', accept: 'x' }), base, 'other fields do not select');
  const others = [
    key({}),
    key({ 'accept-language': 'de' }),
    key({ 'accept-language': '', cookie: 'a=1' }),
    key({ cookie: 'a=1' }),
    key({ 'accept-language': 'de\ncookie:"a=1"' }),
    key({ 'accept-language': 'null', cookie: 'a=1' }),
    key({ 'accept-language': 'de', cookie: 'A=1' }),
  ];
  test.equal(new Set([base, ...others]).size, 8, 'each of these selects another answer');
  test.equal(key({ 'accept-language': ['de', 'en'] }), key({ 'accept-language': 'de, en' }));
});

await t.test('Vary: what means the same selects the same', async (test) => {
  const same: readonly (readonly [name: string, readonly string[]])[] = [
    ['accept-language', ['de, en;q=0.5', 'de,en;q=0.5', ' DE , EN ; Q=0.5 ', 'en;q=0.5, de']],
    ['accept-encoding', ['gzip, br', 'br,gzip', 'GZIP,Br']],
    ['accept-charset', ['utf-8, iso-8859-1;q=0.3', 'iso-8859-1 ;q=0.3,UTF-8']],
    ['accept', ['text/html, text/plain;q=0.1', 'text/html,text/plain; q=0.1']],
    ['x-own', ['a, b', 'a,b', ' a ,b ']],
  ];
  for (const [name, values] of same)
    test.equal(new Set(values.map((value) => selectingValues([name], { [name]: value }))).size, 1, `${name} means one`);
  const different: readonly (readonly [name: string, readonly (string | undefined)[]])[] = [
    ['accept-language', ['de', 'de;q=0.5', 'de, en', 'de-DE', '', undefined]],
    ['accept-encoding', ['gzip', 'gzip;q=0', 'identity', '', undefined]],
    // Order and case mean something where nobody knows better.
    ['accept', ['text/html, text/plain', 'text/plain, text/html', 'TEXT/HTML, text/plain']],
    ['x-own', ['a, b', 'b, a', 'A, b', 'ab', '"a, b"', '"a,b"']],
    ['cookie', ['a=1; b=2', 'b=2; a=1', 'A=1; b=2']],
  ];
  for (const [name, values] of different) {
    const selected = values.map((value) => selectingValues([name], value === undefined ? {} : { [name]: value }));
    test.equal(new Set(selected).size, values.length, `${name}: each selects another`);
  }
});

await t.test('field names that every object has', async (test) => {
  // An origin may name any token in Vary, and these are tokens: `Vary: constructor` must not break the exchange.
  for (const name of ['constructor', '__proto__']) {
    test.doesNotThrow(() => {
      const names = varyNames({ vary: name }) ?? [];
      test.equal(selectingValues(names, { host: 'a' }), selectingValues(names, {}), name);
    }, `Vary: ${name}`);
  }
});

await t.test('lists', async (test) => {
  test.same(listMembers(' A,b ,, C'), ['a', 'b', 'c']);
  test.same(listMembers(undefined), []);
  test.equal(addToList(undefined, ['A', 'B']), 'A, B');
  test.equal(addToList('', ['A']), 'A');
  test.equal(addToList('accept-encoding, Cookie', ['Accept-Encoding', 'X']), 'accept-encoding, Cookie, X');
  test.equal(addToList('*', ['A']), '*');
  test.equal(addToList('A', []), 'A');
  test.equal(removeFromList('Gzip, PeerDist, br', ['peerdist']), 'Gzip, br');
  test.equal(removeFromList('peerdist', ['peerdist']), undefined);
  test.equal(removeFromList(undefined, ['peerdist']), undefined);
  test.equal(fieldValue({ a: ['1', '2'] }, 'a'), '1, 2');
  test.same(withoutFields({ a: '1', b: '2' }, ['a', 'c']), { b: '2' });
});

await t.test('Cache-Control', async (test) => {
  const directives = parseCacheControl(
    'No-Store, max-age=60 ,s-maxage = "5", private="set-cookie, x", max-age=0, ext="a\\"b"',
  );
  test.same(Object.fromEntries(directives), {
    'no-store': true,
    'max-age': '60',
    's-maxage': '5',
    private: 'set-cookie, x',
    ext: 'a\\"b',
  });
  test.equal(parseCacheControl(undefined).size, 0);
  test.ok(parseCacheControl('no-transform').has('no-transform'));
  test.notOk(parseCacheControl('x="no-transform"').has('no-transform'), 'a quoted value is no directive');
  fc.assert(
    fc.property(fc.string(), (text) => parseCacheControl(text).size <= text.length),
    { seed: 6 },
  );
});

await t.test('Cache-Status', async (test) => {
  const read = (value: string): unknown => nearestCacheStatus(value);
  test.same(read('peerdist; hit'), { isHit: true, forwardStatus: undefined });
  test.same(
    read('a; hit, peerdist; fwd=stale; fwd-status=304'),
    { isHit: false, forwardStatus: 304 },
    'the nearest one',
  );
  test.same(read('a; fwd=miss, "b, c; \\"d" ;hit=?1; ttl=3'), { isHit: true, forwardStatus: undefined });
  test.same(read('a; hit=?0; detail="; hit"'), { isHit: false, forwardStatus: undefined });
  test.same(read('hit'), { isHit: false, forwardStatus: undefined }, 'a cache of that name');
  for (const value of [undefined, '', ' , ', ';hit']) test.equal(nearestCacheStatus(value), undefined);
  fc.assert(
    fc.property(fc.string(), (text) => [undefined, true].includes(nearestCacheStatus(text) && true)),
    { seed: 7 },
  );
});
