/** MS-PCCRTP: the two header fields, and what a content server reads out of a request. */
import * as fc from 'fast-check';
import t from 'tap';
import type { HeaderFields } from '../../lib/http/index.ts';
import {
  compareVersions,
  formatPeerDist,
  formatPeerDistEx,
  negotiate,
  parsePeerDist,
  parsePeerDistEx,
  PEERDIST_VARY,
} from '../../lib/protocol/pccrtp/index.ts';
import { ipxeRequests } from '../support/vectors.ts';

const version = (text: string): { major: number; minor: number } => {
  const [major, minor] = text.split('.').map(Number);
  return { major: major as number, minor: minor as number };
};

await t.test('X-P2P-PeerDist, read', async (test) => {
  const none = { missingDataRequest: false };
  const cases: readonly (readonly [string, object])[] = [
    ['Version=1.0', { ...none, version: version('1.0') }],
    ['Version=1.1, ContentLength=99710', { ...none, version: version('1.1'), contentLength: 99_710 }],
    ['Version=1.0,MissingDataRequest=true', { version: version('1.0'), missingDataRequest: true }],
    ['Version=1.0 ,\t MissingDataRequest=true ', { version: version('1.0'), missingDataRequest: true }],
    [', Version=1.1, ContentLength=5', { ...none, version: version('1.1'), contentLength: 5 }],
    ['ContentLength=5, Version=1.1', { ...none, version: version('1.1'), contentLength: 5 }],
    ['version=1.1, contentlength=5, MISSINGDATAREQUEST=FALSE', { ...none, version: version('1.1'), contentLength: 5 }],
    ['Version=1.1, MissingDataRequest=InvalidValue', { version: version('1.1'), missingDataRequest: true }],
    ['Version=1.1, MissingDataRequest=', { version: version('1.1'), missingDataRequest: true }],
    ['Version=1.1, Unknown=x, flag', { ...none, version: version('1.1') }],
    ['Version=1.1, Version=2.0', { ...none, version: version('1.1') }],
    ['Version=1.23', { ...none, version: version('1.23') }],
    ['Version=999.999', { ...none, version: version('999.999') }],
    ['Version=1', none],
    ['Version=1.1.1', none],
    ['Version=one.one', none],
    ['Version=-1.0', none],
    ['Version=1.1234567890', none],
    ['Version=', none],
    ['', none],
    ['=,=,,=1.0', none],
    ['Version=1.0, ContentLength=-5', { ...none, version: version('1.0') }],
    ['Version=1.0, ContentLength=5.5', { ...none, version: version('1.0') }],
    ['Version=1.0, ContentLength=9999999999999999999', { ...none, version: version('1.0') }],
    ['Version=1.0, ContentLength=0', { ...none, version: version('1.0'), contentLength: 0 }],
  ];
  for (const [value, expected] of cases) test.strictSame(parsePeerDist(value), expected, JSON.stringify(value));
  test.equal(parsePeerDist(undefined), undefined);
});

await t.test('X-P2P-PeerDistEx, read', async (test) => {
  const none = { hashRequest: false, makeHashRequest: false };
  const both = { minContentInformation: version('1.0'), maxContentInformation: version('2.0') };
  const cases: readonly (readonly [string, object])[] = [
    ['MinContentInformation=1.0, MaxContentInformation=2.0', { ...none, ...both }],
    ['mincontentinformation=1.0,MAXCONTENTINFORMATION=2.0', { ...none, ...both }],
    ['MinContentInformation=1.0, MaxContentInformation=2.0, HashRequest=true', { ...both, ...none, hashRequest: true }],
    [', HashRequest=true', { ...none, hashRequest: true }],
    ['MakeHashRequest=true', { ...none, makeHashRequest: true }],
    [', MakeHashRequest=TRUE', { ...none, makeHashRequest: true }],
    ['MakeHashRequest=false, HashRequest=yes', none],
    ['MaxContentInformation=two', none],
    ['', none],
  ];
  for (const [value, expected] of cases) test.strictSame(parsePeerDistEx(value), expected, JSON.stringify(value));
  test.equal(parsePeerDistEx(undefined), undefined);
});

await t.test('written as Microsoft’s readers expect, and read again', async (test) => {
  test.equal(formatPeerDist({ version: version('1.1'), contentLength: 99_710 }), 'Version=1.1, ContentLength=99710');
  test.equal(formatPeerDist({ version: version('1.0'), contentLength: 0 }), 'Version=1.0, ContentLength=0');
  test.equal(
    formatPeerDist({ version: version('1.1'), missingDataRequest: true }),
    'Version=1.1, MissingDataRequest=true',
  );
  test.equal(formatPeerDist({ version: version('1.1'), missingDataRequest: false }), 'Version=1.1');
  const iPxe = ipxeRequests();
  test.equal(formatPeerDistEx(2), iPxe.get('origin request (verbatim)')?.['x-p2p-peerdistex']);
  test.equal(
    formatPeerDist({ version: version('1.1'), missingDataRequest: true }),
    iPxe.get('range fallback request (verbatim)')?.['x-p2p-peerdist'],
  );
  test.equal(formatPeerDistEx(1), 'MinContentInformation=1.0, MaxContentInformation=1.0');
  test.equal(
    formatPeerDistEx(2, { hashRequest: true }),
    'MinContentInformation=1.0, MaxContentInformation=2.0, HashRequest=true',
  );
  const number = fc.integer({ min: 0, max: 999_999_999 });
  fc.assert(
    fc.property(number, number, fc.nat(), fc.boolean(), (major, minor, contentLength, missingDataRequest) => {
      const parameters = { version: { major, minor }, contentLength, missingDataRequest };
      const parsed = parsePeerDist(formatPeerDist(parameters));
      return JSON.stringify(parsed) === JSON.stringify(parameters);
    }),
    { seed: 1 },
  );
  test.same(PEERDIST_VARY, ['Accept-Encoding', 'X-P2P-PeerDist', 'X-P2P-PeerDistEx']);
});

await t.test('versions are two numbers, not a fraction', async (test) => {
  const sorted = ['0.9', '1.0', '1.1', '1.3', '1.23', '1.100', '2.0', '10.0'];
  for (const [index, text] of sorted.entries()) {
    for (const [other, second] of sorted.entries()) {
      test.equal(
        Math.sign(compareVersions(version(text), version(second))),
        Math.sign(index - other),
        `${text} ${second}`,
      );
    }
  }
});

await t.test('negotiate', async (test) => {
  const identity = 'identity';
  const missing = 'missing-data';
  /** `v<content information version> <echo>`, with `hash` for a hash request. */
  const cases: readonly (readonly [string, HeaderFields, string])[] = [
    ['nothing of peerdist', {}, identity],
    ['the coding without the header', { 'accept-encoding': 'gzip, peerdist' }, identity],
    ['the header without the coding', { 'x-p2p-peerdist': 'Version=1.1' }, identity],
    ['the header with another coding', ask('gzip, deflate', 'Version=1.1'), identity],
    ['V1, as Microsoft’s test client', ask('peerdist', 'Version=1.0'), 'v1 1.0'],
    ['V2, as Microsoft’s test client', ask('peerdist', 'Version=1.1', span(1, 2)), 'v2 1.1'],
    ['no Ex header: version 1', ask('peerdist', 'Version=1.1'), 'v1 1.1'],
    ['a 1.0 client with an Ex header', ask('peerdist', 'Version=1.0', span(1, 2)), 'v2 1.0'],
    ['at most version 1', ask('peerdist', 'Version=1.1', span(1, 1)), 'v1 1.1'],
    ['only version 2', ask('peerdist', 'Version=1.1', span(2, 2)), 'v2 1.1'],
    ['up to a version we do not know', ask('peerdist', 'Version=1.1', span(1, 3)), 'v2 1.1'],
    ['C12: 900.0 to 999.0', ask('peerdist', 'Version=1.1', span(900, 999)), identity],
    ['below 1.0', ask('peerdist', 'Version=1.1', span(0, 0)), identity],
    ['newest below oldest', ask('peerdist', 'Version=1.1', span(2, 1)), identity],
    [
      'between 1.0 and 2.0',
      ask('peerdist', 'Version=1.1', 'MinContentInformation=1.1, MaxContentInformation=1.9'),
      identity,
    ],
    [
      '1.23 is newer than 1.3',
      ask('peerdist', 'Version=1.1', 'MinContentInformation=1.23, MaxContentInformation=1.3'),
      identity,
    ],
    [
      'up to 1.9: version 1',
      ask('peerdist', 'Version=1.1', 'MinContentInformation=1.0, MaxContentInformation=1.9'),
      'v1 1.1',
    ],
    ['up to 2.1', ask('peerdist', 'Version=1.1', 'MinContentInformation=1.0, MaxContentInformation=2.1'), 'v2 1.1'],
    ['only Max', ask('peerdist', 'Version=1.1', 'MaxContentInformation=2.0'), 'v2 1.1'],
    ['an Ex header that says nothing', ask('peerdist', 'Version=1.1', ''), 'v1 1.1'],
    [
      'names in any case',
      ask('peerdist', 'VERSION=1.1', 'mINcontentinformation=1.0,MAXCONTENTINFORMATION=2.0'),
      'v2 1.1',
    ],
    [
      'leading commas',
      ask(', peerdist', ', Version=1.1', ', MinContentInformation=1.0, MaxContentInformation=2.0'),
      'v2 1.1',
    ],
    [
      'white space around commas',
      ask('gzip ,\tpeerdist ', ' Version=1.1 ', 'MinContentInformation=1.0 ,\tMaxContentInformation=2.0 '),
      'v2 1.1',
    ],
    [
      'no space after the comma',
      ask('gzip,peerdist', 'Version=1.1', 'MinContentInformation=1.0,MaxContentInformation=2.0'),
      'v2 1.1',
    ],
    ['the coding in capitals', ask('PeerDist', 'Version=1.1'), 'v1 1.1'],
    ['the coding with a weight', ask('gzip;q=1.0, peerdist;q=0.1', 'Version=1.1'), 'v1 1.1'],
    ['the coding refused', ask('gzip, peerdist;q=0', 'Version=1.1'), identity],
    ['the coding refused, with zeros', ask('peerdist; q=0.000', 'Version=1.1'), identity],
    ['* is no consent', ask('*', 'Version=1.1'), identity],
    ['* beside others', ask('gzip, *;q=1', 'Version=1.1', span(1, 2)), identity],
    ['a coding that only begins like it', ask('peerdistx, xpeerdist', 'Version=1.1'), identity],
    ['several lines', { ...ask('', 'Version=1.1'), 'accept-encoding': ['gzip', 'peerdist'] }, 'v1 1.1'],
    ['C9: Version=999.999', ask('peerdist', 'Version=999.999'), identity],
    ['another major version', ask('peerdist', 'Version=2.0', span(1, 2)), identity],
    ['version 0', ask('peerdist', 'Version=0.9'), identity],
    ['a newer minor version includes 1.1', ask('peerdist', 'Version=1.23', span(1, 2)), 'v2 1.1'],
    ['no version', ask('peerdist', ''), identity],
    ['a version that is none', ask('peerdist', 'Version=1'), identity],
    ['C5: missing data, the coding still there', ask('peerdist', 'Version=1.0,MissingDataRequest=true'), missing],
    ['C6: the same with an Ex header', ask('peerdist', 'Version=1.1,MissingDataRequest=true', span(1, 2)), missing],
    ['missing data without the coding', { 'x-p2p-peerdist': 'Version=1.1, MissingDataRequest=true' }, missing],
    ['C10: MissingDataRequest=false', ask('peerdist', 'Version=1.0, MissingDataRequest=false'), 'v1 1.0'],
    ['MissingDataRequest=False', ask('peerdist', 'Version=1.0, MissingDataRequest=False'), 'v1 1.0'],
    ['C11: MissingDataRequest=InvalidValue', ask('peerdist', 'Version=1.0, MissingDataRequest=InvalidValue'), missing],
    [
      'missing data beats a hash request',
      ask('peerdist', 'Version=1.1, MissingDataRequest=true', `${span(1, 2)}, HashRequest=true`),
      missing,
    ],
    ['a hash request', ask('peerdist', 'Version=1.1', `${span(1, 2)}, HashRequest=true`), 'v2 1.1 hash'],
    [
      'a hash request without Accept-Encoding, as Windows sends it',
      { 'x-p2p-peerdist': 'Version=1.1', 'x-p2p-peerdistex': `${span(1, 2)}, HashRequest=true` },
      'v2 1.1 hash',
    ],
    [
      'a hash request of a leading comma only',
      { 'x-p2p-peerdist': 'Version=1.1', 'x-p2p-peerdistex': ', HashRequest=true' },
      'v1 1.1 hash',
    ],
    ['a hash request without X-P2P-PeerDist', { 'x-p2p-peerdistex': `${span(1, 2)}, HashRequest=true` }, identity],
    [
      'HashRequest=false is none',
      { 'x-p2p-peerdist': 'Version=1.1', 'x-p2p-peerdistex': 'HashRequest=false' },
      identity,
    ],
    [
      'what a server answers is no request',
      { 'x-p2p-peerdist': 'Version=1.1', 'x-p2p-peerdistex': 'MakeHashRequest=true' },
      identity,
    ],
  ];
  for (const [name, headers, expected] of cases) test.equal(describe(headers), expected, name);

  const iPxe = ipxeRequests();
  test.equal(iPxe.size, 3);
  test.equal(describe(iPxe.get('origin request (verbatim)') ?? {}), 'v2 1.1', 'iPXE asks');
  test.equal(describe(iPxe.get('range fallback request (verbatim)') ?? {}), missing, 'iPXE falls back');
});

await t.test('whatever the fields say: an answer', async (test) => {
  const parameter = fc.oneof(
    fc.constantFrom(
      'Version=1.1',
      'Version=1.0',
      'MissingDataRequest=true',
      'HashRequest=true',
      'MaxContentInformation=2.0',
      '=',
      ',',
    ),
    fc.string({ unit: 'binary', maxLength: 20 }),
  );
  const field = fc.oneof(
    fc.string(),
    fc.array(parameter).map((parts) => parts.join(',')),
    fc.array(fc.string()),
  );
  const optional = fc.option(field, { nil: undefined });
  const kinds = new Set<string>();
  fc.assert(
    fc.property(optional, optional, fc.oneof(optional, fc.constant('peerdist')), (peerDist, ex, acceptEncoding) => {
      const { kind } = negotiate({
        'x-p2p-peerdist': peerDist,
        'x-p2p-peerdistex': ex,
        'accept-encoding': acceptEncoding,
      });
      kinds.add(kind);
    }),
    { numRuns: 3_000, seed: 5 },
  );
  test.same([...kinds].toSorted(), ['content-information', 'identity', 'missing-data'], 'and all of them occur');
});

function ask(acceptEncoding: string, peerDist: string, ex?: string): HeaderFields {
  return { 'accept-encoding': acceptEncoding, 'x-p2p-peerdist': peerDist, 'x-p2p-peerdistex': ex };
}

function span(min: number, max: number): string {
  return `MinContentInformation=${min}.0, MaxContentInformation=${max}.0`;
}

function describe(headers: HeaderFields): string {
  const result = negotiate(headers);
  if (result.kind !== 'content-information') return result.kind;
  const echo = `${result.version.major}.${result.version.minor}`;
  return `v${result.contentInformationVersion} ${echo}${result.hashRequest ? ' hash' : ''}`;
}
