/**
 * MS-PCCRD against the outside: Microsoft's vectors in both directions, the probe iPXE sent and the way it reads answers, then everything a
 * neighbour may send instead.
 */
import * as fc from 'fast-check';
import t from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import { isPeerDistError } from '../../lib/errors.ts';
import {
  type Availability,
  decodeDiscovery,
  encodeProbe,
  encodeProbeMatches,
  formatPeerAddress,
  MAX_V2_SEGMENTS,
  parsePeerAddress,
  type PeerAddress,
  type Probe,
  type ProbeMatch,
  type ProbeMatches,
  type Sender,
} from '../../lib/protocol/pccrd/index.ts';
import { exponentOf } from '../support/complexity.ts';
import { seededBytes } from '../support/random.ts';
import { type DiscoveryVector, ipxeProbe, microsoftStack } from '../support/vectors.ts';

const MALFORMED = 'ERR_PEERDIST_MALFORMED_MESSAGE';
/** The longest that is read (`services/discovery`). */
const MAX_DATAGRAM_BYTES = 32 * 1024;

const SOAP = 'http://www.w3.org/2003/05/soap-envelope';
const WSA = 'http://schemas.xmlsoap.org/ws/2004/08/addressing';
const WSD = 'http://schemas.xmlsoap.org/ws/2005/04/discovery';
const PEERDIST = 'http://schemas.microsoft.com/p2p/2007/09/PeerDistributionDiscovery';
const STRCMP0 = `${WSD}/strcmp0`;
const V2_RULE = 'http://schemas.microsoft.com/p2p/2010/05/PeerDistV2MatchingRule';

const MESSAGE_ID = 'urn:uuid:91528b47-b96d-4e30-981f-308c0586926f';
const SENDER: Sender = {
  messageId: 'urn:uuid:87a89944-0230-43a5-ac4e-fab1386c8e2c',
  endpoint: 'urn:uuid:7f4b09a3-96c9-4170-9eb3-1c805a52f444',
  instanceId: 42,
  messageNumber: 1,
};
const PLACE: PeerAddress = { address: '127.0.0.1', port: 8_282 };

const { pccrd: vectors } = microsoftStack();

const id = (seed: number, bytes = 32): string => toHex(seededBytes(seed + 1, bytes));
const [A, B] = [id(1), id(2)] as const;

function vector(name: string): DiscoveryVector {
  return vectors.find((each) => each.name === name) as DiscoveryVector;
}

function decode(text: string | Uint8Array): ReturnType<typeof decodeDiscovery> {
  return decodeDiscovery(typeof text === 'string' ? Buffer.from(text) : text);
}

function probeOf(text: string | Uint8Array): Probe {
  const message = decode(text);
  if (message === undefined || !('probe' in message)) throw new Error('not a probe');
  return message.probe;
}

function matchesOf(text: string | Uint8Array): ProbeMatches {
  const message = decode(text);
  if (message === undefined || !('probeMatches' in message)) throw new Error('not an answer');
  return message.probeMatches;
}

/** What became of a datagram: the code it was refused with, or what it was taken for. */
function outcome(text: string | Uint8Array): string {
  try {
    const message = decode(text);
    return message === undefined ? 'undefined' : `accepted as ${Object.keys(message).join()}`;
  } catch (error) {
    return isPeerDistError(error) ? error.code : `threw ${String(error)}`;
  }
}

/** As plain values that `t.same` compares. */
function plain({ relatesTo, matches }: ProbeMatches): object {
  return {
    relatesTo,
    matches: matches.map(({ addresses, holdings }) => ({
      addresses,
      holdings: holdings.version === 1 ? Object.fromEntries(holdings.blockCounts) : holdings,
    })),
  };
}

/** XML whose writing is of no meaning written one way: declarations sorted, no blank before the end of an empty element. */
function canonical(xml: string): string {
  return xml
    .replace(/^<\?xml[^>]*\?>/, '')
    .replaceAll(' />', '/>')
    .replace(/(?: xmlns:\w+="[^"]*")+/, (declarations) =>
      declarations
        .trim()
        .split(' ')
        .toSorted((a, b) => (a < b ? -1 : 1))
        .join(' '),
    );
}

// --- vectors ---------------------------------------------------------------------------------------------------------------------

await t.test('vectors: the fields give the XML and the XML gives the fields', async (test) => {
  const read: string[] = [];
  for (const { name, xml, fields } of vectors) {
    read.push(name);
    const message = decode(xml);
    if (message !== undefined && 'probe' in message) {
      const { probe } = message;
      const version = fields.Types === 'PeerDist:PeerDistDataV2' ? 2 : 1;
      const scope = Buffer.from(String(fields.ScopesBytes ?? ''), 'hex');
      const segmentIds =
        version === 1
          ? String(fields.Scopes).toLowerCase().split(' ')
          : Array.from({ length: scope.readUInt8(2) }, (_, index) =>
              scope.subarray(3).toString('hex', 32 * index, 32 * (index + 1)),
            );
      const expected: Probe = { messageId: String(fields.MessageID), version, segmentIds };
      test.ok(xml.includes(String(fields.MatchBy)));
      test.same(probe, expected, `${name} decoded`);
      const encoded = Buffer.from(encodeProbe(expected)).toString();
      test.same(decode(encoded), message, `${name}: ours decodes to the same`);
      test.equal(canonical(encoded), canonical(xml), `${name}: and is the same XML`);
      if (version === 2) test.ok(encoded.includes(`>${String(fields.ScopesBase64)}<`));
      continue;
    }
    const answer = matchesOf(xml);
    const [match] = answer.matches as [ProbeMatch];
    test.same([answer.matches.length, match.addresses], [1, [PLACE]], name);
    test.equal(match.addresses.map(formatPeerAddress).join(' '), fields.XAddrs);
    test.equal(match.holdings.version, fields.MetadataVersion);
    const encoded = Buffer.from(encodeProbeMatches(SENDER, MESSAGE_ID, match)).toString();
    test.same(plain(matchesOf(encoded)), plain(answer), `${name}: ours decodes to the same`);
    test.equal(canonical(encoded), canonical(xml), `${name}: and is the same XML`);
  }
  test.same(read, ['Probe-v1', 'Probe-v2', 'ProbeMatches-v1', 'ProbeMatches-v2'], 'none was skipped');

  test.same(plain(matchesOf(vector('ProbeMatches-v1').xml)), {
    relatesTo: MESSAGE_ID,
    matches: [
      {
        addresses: [PLACE],
        holdings: {
          '4ab7a36f703d3ee3ed9bf9f7cee640645dbe6a5ac64437455251e7620fa2f0f3': 42,
          '97f6e637eb90f723ed78ea8f8b1875adc01ab89f19f20a322040ab1b524b31d6': 512,
        },
      },
    ],
  });
  test.same(plain(matchesOf(vector('ProbeMatches-v2').xml)), {
    relatesTo: MESSAGE_ID,
    matches: [
      {
        addresses: [PLACE],
        holdings: {
          version: 2,
          availability: ['all', 'some', 'none', 'none'],
          ages: [
            { index: 0, ageMs: 600_000 },
            { index: 1, ageMs: 600_000 },
          ],
        },
      },
    ],
  });
});

await t.test('iPXE’s probe, as recorded, is what we write for the same question', async (test) => {
  const probe = probeOf(ipxeProbe());
  test.same(probe, {
    messageId: 'urn:uuid:dbd67675-ea8a-5235-ed89-e20bb543172b',
    version: 1,
    segmentIds: ['9c766733797f9d7d62a587b53208b941632fc4c1833440ba40d882d647b44629'],
  });
  test.equal(Buffer.from(encodeProbe(probe)).toString(), ipxeProbe(), 'byte for byte');
  test.equal(ipxeProbe().length, 814);
});

await t.test('the examples of section 4 decode, with the line breaks they are printed with', async (test) => {
  const spaced = (xml: string): string =>
    xml.replaceAll(/>([^<>\s][^<>]*)</g, '>\r\n\t$1 \r\n<').replaceAll('><', '>\n<');
  test.same(probeOf(spaced(ipxeProbe())), probeOf(ipxeProbe()));
  for (const { name, xml } of vectors) {
    const message = decode(spaced(xml));
    test.not(spaced(xml), xml);
    test.same(
      message !== undefined && 'probe' in message ? message : plain(matchesOf(spaced(xml))),
      message !== undefined && 'probe' in message ? decode(xml) : plain(matchesOf(xml)),
      name,
    );
  }
  // 4.2: two HoHoDks, the same one twice.
  const two = 'ACACI74aAQAAAAAwHRoBAAAAAEEAQQBEAHkAZwBNAE0AMQAjvhoBAAAAADAdGgEAAAAAQQBBAEQAeQBnAE0ATQAxAA==';
  const hohodk = '23be1a0100000000301d1a0100000000410041004400790067004d004d003100';
  test.same(probeOf(probeXml({ scopes: two, types: 'PeerDistDataV2', matchBy: V2_RULE })).segmentIds, [hohodk, hohodk]);
  // 4.4: forty whole segments, ages of the first and the third.
  const [match] = matchesOf(
    matchXml({
      types: 'PeerDistDataV2',
      scopes: '/////////////w==',
      data: '<p:SegmentAges>AAEDAgBg6gACYOoA</p:SegmentAges>',
    }),
  ).matches;
  test.same(match?.holdings, {
    version: 2,
    availability: Array.from({ length: 40 }, () => 'all'),
    ages: [
      { index: 0, ageMs: 600_000 },
      { index: 2, ageMs: 600_000 },
    ],
  });
});

// --- messages of others ----------------------------------------------------------------------------------------------------------

interface EnvelopeParts {
  readonly declaration?: string;
  readonly action?: string;
  readonly messageId?: string;
  readonly relatesTo?: string | undefined;
  readonly header?: string;
  readonly body: string;
}

/** An envelope with other prefixes than ours. */
function envelopeXml({
  declaration = '',
  action = `${WSD}/Probe`,
  messageId = MESSAGE_ID,
  relatesTo,
  header = '',
  body,
}: EnvelopeParts): string {
  const relates = relatesTo === undefined ? '' : `<a:RelatesTo>${relatesTo}</a:RelatesTo>`;
  return (
    `${declaration}<s:Envelope xmlns:s="${SOAP}" xmlns:a="${WSA}" xmlns:d="${WSD}" xmlns:p="${PEERDIST}">` +
    `<s:Header><a:Action>${action}</a:Action><a:MessageID>${messageId}</a:MessageID>${relates}${header}</s:Header>` +
    `<s:Body>${body}</s:Body></s:Envelope>`
  );
}

function probeXml({
  types = 'PeerDistData',
  matchBy = STRCMP0,
  scopes = A.toUpperCase(),
  ...parts
}: Partial<EnvelopeParts> & { types?: string; matchBy?: string; scopes?: string } = {}): string {
  const body = `<d:Probe><d:Types>p:${types}</d:Types><d:Scopes MatchBy="${matchBy}">${scopes}</d:Scopes></d:Probe>`;
  return envelopeXml({ body, ...parts });
}

function matchXml({
  types = 'PeerDistData',
  scopes = A.toUpperCase(),
  places = '10.0.0.1:80',
  data = '<p:BlockCount>00000001</p:BlockCount>',
  copies = 1,
  ...parts
}: Partial<EnvelopeParts> & {
  types?: string;
  scopes?: string;
  places?: string;
  data?: string;
  copies?: number;
} = {}): string {
  const match =
    `<d:ProbeMatch><d:Types>p:${types}</d:Types><d:Scopes>${scopes}</d:Scopes><d:XAddrs>${places}</d:XAddrs>` +
    `<p:PeerDistData>${data}</p:PeerDistData></d:ProbeMatch>`;
  const body = `<d:ProbeMatches>${match.repeat(copies)}</d:ProbeMatches>`;
  return envelopeXml({ action: `${WSD}/ProbeMatches`, relatesTo: MESSAGE_ID, body, ...parts });
}

const SCOPES = `<d:Scopes MatchBy="${STRCMP0}">${A}</d:Scopes>`;

await t.test('prefixes are free, namespaces are what counts', async (test) => {
  const expected = probeOf(ipxeProbe().replace(/(strcmp0">)[^<]+/, `$1${A.toUpperCase()}`));
  const inDefaults =
    `<Envelope xmlns="${SOAP}"><Header><Action xmlns="${WSA}">${WSD}/Probe</Action>` +
    `<x:MessageID xmlns:x="${WSA}">${expected.messageId}</x:MessageID></Header><Body><Probe xmlns="${WSD}">` +
    `<q:Types xmlns:q="${WSD}" xmlns="${PEERDIST}">PeerDistData</q:Types>` +
    `<Scopes MatchBy='${STRCMP0}'>${A}</Scopes></Probe></Body></Envelope>`;
  const cases: readonly (readonly [string, string])[] = [
    ['other prefixes', probeXml({ messageId: expected.messageId })],
    ['default namespaces, a type without prefix', inDefaults],
    ['a byte order mark', `\uFEFF${ipxeProbe()}`.replace(/(strcmp0">)[^<]+/, `$1${A.toUpperCase()}`)],
    [
      'a prefix that means something else where the type is named',
      probeXml({
        messageId: expected.messageId,
        body: `<d:Probe><d:Types xmlns:wsd="${PEERDIST}">wsd:PeerDistData</d:Types>${SCOPES}</d:Probe>`,
      }),
    ],
    [
      'more than one type',
      probeXml({
        messageId: expected.messageId,
        body: `<d:Probe><d:Types>d:Device p:PeerDistData</d:Types>${SCOPES}</d:Probe>`,
      }),
    ],
    [
      'comments, CDATA, predefined entities, character references, other elements and attributes',
      probeXml({
        messageId: `${expected.messageId.slice(0, -1)}<!-- - --><![CDATA[${expected.messageId.slice(-1)}]]>`,
        action: `${WSD}/Prob&#x65;`,
        header: '<other xmlns="urn:other" at="&lt;&amp;">&quot;</other><a:To>anything</a:To>',
        body: `<d:Probe d:x="1"><d:Types>p:PeerDistData</d:Types>${SCOPES}<x xmlns="urn:x"/></d:Probe>`,
      }),
    ],
  ];
  for (const [name, text] of cases) test.same(probeOf(text), expected, name);
});

await t.test('segment IDs: hexadecimal of either case and of the three lengths there are', async (test) => {
  for (const bytes of [32, 48, 64])
    for (const write of [(text: string) => text, (text: string) => text.toUpperCase()]) {
      const ids = [id(1, bytes), id(2, bytes)];
      test.same(probeOf(probeXml({ scopes: ids.map(write).join('\n\t ') })).segmentIds, ids, `${bytes} bytes`);
    }
  for (const version of [1, 2] as const)
    for (const bytes of [32, 48, 64])
      for (const count of [1, 2, 100, MAX_V2_SEGMENTS]) {
        const probe: Probe = {
          messageId: MESSAGE_ID,
          version,
          segmentIds: Array.from({ length: count }, (_, index) => id(index, bytes)),
        };
        test.same(probeOf(encodeProbe(probe)), probe, `version ${version}: ${count} of ${bytes} bytes`);
      }
  const tooMany = Array.from({ length: 300 }, (_, index) => id(index));
  const { segmentIds } = probeOf(encodeProbe({ messageId: MESSAGE_ID, version: 2, segmentIds: tooMany }));
  test.same(segmentIds, tooMany.slice(0, 255), 'a version 2 scope has a count of one byte');
});

await t.test('messages of other services are none of ours, and no error', async (test) => {
  const other = (types: string): string => probeXml({ body: `<d:Probe>${types}${SCOPES}</d:Probe>` });
  const cases: readonly (readonly [string, string])[] = [
    ['a probe for printers', other('<d:Types xmlns:x="urn:printers">x:PrintDeviceType</d:Types>')],
    ['for our type in another namespace', other('<d:Types xmlns:p="urn:else">p:PeerDistData</d:Types>')],
    ['for a type of our name without namespace', other('<d:Types>PeerDistData</d:Types>')],
    ['for a prefix nobody declared', other('<d:Types>z:PeerDistData</d:Types>')],
    ['for a third version', other('<d:Types>p:PeerDistDataV3</d:Types>')],
    ['for everything', other('')],
    ['for nothing', other('<d:Types/>')],
    ['types of another namespace', other('<a:Types>p:PeerDistData</a:Types>')],
    ['Hello', envelopeXml({ action: `${WSD}/Hello`, body: '<d:Hello/>' })],
    ['an unknown action', envelopeXml({ action: 'urn:x', body: '<x/>' })],
  ];
  for (const [name, text] of cases) test.equal(outcome(text), 'undefined', name);
  const printers = matchXml().replace('p:PeerDistData<', 'a:Printer<');
  test.same(matchesOf(printers).matches, [], 'matches of other services are left out');
  test.equal(matchesOf(matchXml({ copies: 2 })).matches.length, 2);
});

// --- how iPXE reads --------------------------------------------------------------------------------------------------------------

/** What iPXE makes of an answer: text between literal tags, cut at white space, without segments of no blocks. Undefined = it gives up. */
function readAsIpxe(datagram: Uint8Array): { ids: string[]; places: string[] } | undefined {
  const text = Buffer.from(datagram).toString('latin1');
  const values = (tag: string): string[] | undefined => {
    const [, rest] = splitOnce(text, `<${tag}>`);
    const [inside, after] = splitOnce(rest ?? '', `</${tag}>`);
    return after === undefined ? undefined : (inside ?? '').split(/[ \t\n\v\f\r]+/).filter((word) => word !== '');
  };
  const ids = values('wsd:Scopes');
  const places = values('wsd:XAddrs');
  const [counts = ''] = values('PeerDist:BlockCount') ?? [];
  if (ids === undefined || places === undefined || 8 * ids.length > counts.length) return undefined;
  return { ids: ids.filter((_, index) => counts.slice(8 * index, 8 * index + 8) !== '00000000'), places };
}

function splitOnce(text: string, mark: string): [string, string | undefined] {
  const at = text.indexOf(mark);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + mark.length)];
}

await t.test('iPXE finds segments and places in our answers by literal tags', async (test) => {
  const places: readonly PeerAddress[] = [
    PLACE,
    { address: 'fe80::1', port: 80 },
    { address: '2001:db8::7', port: 65_535 },
  ];
  const counts = [1, 0x2a, 511, 512, 0, 0xffff_ffff];
  for (const bytes of [32, 48, 64]) {
    const ids = counts.map((_, index) => id(index, bytes));
    const match: ProbeMatch = {
      addresses: places,
      holdings: { version: 1, blockCounts: new Map(ids.map((each, index) => [each, counts[index] as number])) },
    };
    const datagram = encodeProbeMatches(SENDER, MESSAGE_ID, match);
    test.same(
      readAsIpxe(datagram),
      {
        ids: ids.filter((_, index) => counts[index] !== 0).map((each) => each.toUpperCase()),
        places: ['127.0.0.1:8282', '[fe80::1]:80', '[2001:db8::7]:65535'],
      },
      'upper case, 8 digits for each segment, bare addresses',
    );
    test.match(Buffer.from(datagram).toString(), '>000000010000002A000001FF0000020000000000FFFFFFFF<');
    test.same(plain(matchesOf(datagram)), plain({ relatesTo: MESSAGE_ID, matches: [match] }), 'and we read the same');
  }
  const asked = probeOf(ipxeProbe());
  const [segment] = asked.segmentIds as [string];
  const answer = encodeProbeMatches(SENDER, asked.messageId, {
    addresses: [PLACE],
    holdings: { version: 1, blockCounts: new Map([[segment, 3]]) },
  });
  test.ok(ipxeProbe().includes(`>${readAsIpxe(answer)?.ids[0]}<`), 'it compares with what it wrote');
  test.equal(readAsIpxe(Buffer.from(vector('ProbeMatches-v1').xml))?.ids.length, 2, 'it reads Microsoft’s answer');
  test.equal(readAsIpxe(Buffer.from(matchXml())), undefined, 'and nothing with other prefixes');
});

await t.test('availability of version 2: two bits for each segment asked, the first in the highest', async (test) => {
  const all: Availability[] = ['all', 'some', 'none', 'all', 'some'];
  for (let length = 1; length <= all.length; length += 1) {
    const availability = all.slice(0, length);
    const ages = [{ index: length - 1, ageMs: 12_340 }];
    const datagram = encodeProbeMatches(SENDER, MESSAGE_ID, {
      addresses: [PLACE],
      holdings: { version: 2, availability, ages },
    });
    const filled = Array.from({ length: 4 * Math.ceil(length / 4) }, (_, index) => availability[index] ?? 'none');
    test.same(matchesOf(datagram).matches[0]?.holdings, { version: 2, availability: filled, ages }, `${length}`);
  }
  // 11 10 00 11, 10 …
  const bits = Buffer.from(
    encodeProbeMatches(SENDER, MESSAGE_ID, {
      addresses: [PLACE],
      holdings: { version: 2, availability: all, ages: [] },
    }),
  ).toString();
  test.match(bits, `>${Buffer.of(0b1110_0011, 0b1000_0000).toString('base64')}</wsd:Scopes>`);
  const holdingsOf = (parts: Parameters<typeof matchXml>[0]): unknown =>
    matchesOf(matchXml({ types: 'PeerDistDataV2', ...parts })).matches[0]?.holdings;
  // "All" without "some" is no answer.
  test.match(holdingsOf({ scopes: Buffer.of(0b0111_0100).toString('base64'), data: '' }), {
    availability: ['none', 'all', 'none', 'none'],
    ages: [],
  });
  for (const blob of ['AAIDAA==', 'AAEJAA==', 'AAEDAQ==', 'AA=='])
    test.match(
      holdingsOf({ scopes: 'wA==', data: `<p:SegmentAges>${blob}</p:SegmentAges>` }),
      { availability: ['all', 'none', 'none', 'none'], ages: [] },
      'ages that cannot be read are discarded, not their message',
    );
});

await t.test('addresses: IPv4 or IPv6 in brackets, with a port, and nothing else', async (test) => {
  const good: readonly (readonly [string, PeerAddress])[] = [
    ['10.0.0.1:80', { address: '10.0.0.1', port: 80 }],
    ['[::1]:65535', { address: '::1', port: 65_535 }],
    ['[fe80::1%eth0]:1', { address: 'fe80::1%eth0', port: 1 }],
    ['[::ffff:10.0.0.1]:8080', { address: '::ffff:10.0.0.1', port: 8_080 }],
  ];
  for (const [text, place] of good) {
    test.same(parsePeerAddress(text), place, text);
    test.equal(formatPeerAddress(place), text);
  }
  const bad = [
    '',
    '10.0.0.1',
    '10.0.0.1:',
    '10.0.0.1:0',
    '10.0.0.1:65536',
    '10.0.0.1:+1',
    '10.0.0.1:1e3',
    '10.0.0.1:080000',
    '10.0.0.256:80',
    '010.0.0.1:80',
    '10.1:80',
    'http://10.0.0.1:80',
    '10.0.0.1:80/path',
    'localhost:80',
    'host.example:80',
    '::1:80',
    '[::1]',
    '[10.0.0.1]:80',
    '[::1%]:80',
    '[::g]:80',
    '@10.0.0.1:80',
    '10.0.0.1:80\n',
  ];
  for (const text of bad) test.equal(parsePeerAddress(text), undefined, JSON.stringify(text));
  const places = `10.0.0.1:80 ${bad
    .filter((text) => !/\s/.test(text))
    .slice(0, 12)
    .join(' ')} [::1]:81`;
  test.same(
    matchesOf(matchXml({ places })).matches[0]?.addresses,
    [
      { address: '10.0.0.1', port: 80 },
      { address: '::1', port: 81 },
    ],
    'those that cannot be used are left out',
  );
  test.same(matchesOf(matchXml({ places: '' })).matches[0]?.addresses, []);
});

// --- what is refused -------------------------------------------------------------------------------------------------------------

await t.test('what is malformed is refused', async (test) => {
  const v2 = { types: 'PeerDistDataV2', matchBy: V2_RULE };
  const scope = (size: number, count: number, bytes: number): string =>
    Buffer.concat([Buffer.of(size >> 8, size & 0xff, count), Buffer.alloc(bytes, 7)]).toString('base64');
  const replaced = (from: string | RegExp, to: string): string => {
    const text = probeXml().replace(from, to);
    if (text === probeXml()) throw new Error(`nothing to replace: ${String(from)}`);
    return text;
  };
  const bombs = '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">';
  const cases: Readonly<Record<string, string | Uint8Array>> = {
    nothing: '',
    'white space': ' \n',
    'no XML': 'M-SEARCH * HTTP/1.1\r\n\r\n',
    'not UTF-8': Buffer.concat([Buffer.from(probeXml()), Buffer.of(0xff)]),
    'UTF-16': Buffer.from(`\uFEFF${probeXml()}`, 'utf16le'),
    'a NUL': probeXml({ messageId: 'a\0' }),
    'cut short': probeXml().slice(0, -1),
    'another root behind the first': `${probeXml()}<x/>`,
    'text behind the end': `${probeXml()}x`,
    'tags that cross': replaced('</s:Body></s:Envelope>', '</s:Envelope></s:Body>'),
    'an attribute twice': replaced('MatchBy=', 'MatchBy="" MatchBy='),
    'an attribute without quotes': replaced(`"${STRCMP0}"`, 'strcmp0'),
    'a prefix nobody declared': replaced('<s:Header>', '<s:Header><z:x/>'),
    'an entity nobody declared': probeXml({ messageId: '&a;' }),
    'a character reference to none': probeXml({ messageId: '&#0;' }),

    'a document type': probeXml({ declaration: '<!DOCTYPE s:Envelope>' }),
    'a document type with an external subset': probeXml({ declaration: '<!DOCTYPE x SYSTEM "file:///etc/passwd">' }),
    'entities that are declared': probeXml({ declaration: `<!DOCTYPE x [${bombs}]>`, messageId: '&b;' }),
    'a document type behind the declaration': probeXml({ declaration: '<?xml version="1.0"?>\n<!DOCTYPE x []>' }),

    'SOAP 1.1': replaced(SOAP, 'http://schemas.xmlsoap.org/soap/envelope/'),
    'no namespace at all': probeXml()
      .replaceAll(/ xmlns:.="[^"]*"/g, '')
      .replaceAll(/[sad]:(?=[A-Z])/g, ''),
    'another root': replaced(/s:Envelope/g, 's:Body'),
    'no header': replaced(/<s:Header>.*<\/s:Header>/, ''),
    'two headers': replaced('<s:Body>', '<s:Header/><s:Body>'),
    'no body': replaced(/<s:Body>.*<\/s:Body>/, ''),
    'two bodies': replaced('</s:Envelope>', '<s:Body/></s:Envelope>'),
    'an empty body': envelopeXml({ body: '' }),
    'two children in a body': envelopeXml({ body: '<d:Probe/><d:Probe/>' }),
    'no action': replaced(/<a:Action>.*<\/a:Action>/, ''),
    'two actions': probeXml({ header: `<a:Action>${WSD}/Probe</a:Action>` }),
    'an action of another namespace': replaced(/a:Action/g, 'd:Action'),
    'no message ID': replaced(/<a:MessageID>.*<\/a:MessageID>/, ''),
    'two message IDs': probeXml({ header: '<a:MessageID>x</a:MessageID>' }),
    'an empty message ID': probeXml({ messageId: ' ' }),
    'a long message ID': probeXml({ messageId: 'a'.repeat(129) }),
    'a message ID with a blank': probeXml({ messageId: 'a b' }),
    'XML in a message ID, as entities': probeXml({ messageId: 'x&lt;/wsa:RelatesTo&gt;&lt;evil/&gt;' }),
    'XML in a message ID, as CDATA': probeXml({ messageId: '<![CDATA[</wsa:RelatesTo>]]>' }),
    'a quote in a message ID': probeXml({ messageId: 'a&quot;b' }),
    'an ampersand in a message ID': probeXml({ messageId: 'a&amp;b' }),
    'a message ID that relates to XML': probeXml({ relatesTo: '&lt;' }),

    'the action of a probe, the body of an answer': envelopeXml({ body: '<d:ProbeMatches/>' }),
    'a probe of another namespace': replaced(/d:Probe/g, 'p:Probe'),
    'no scopes': replaced(/<d:Scopes.*<\/d:Scopes>/, ''),
    'two scopes': replaced('</d:Probe>', `${SCOPES}</d:Probe>`),
    'scopes of another namespace': replaced(/d:Scopes/g, 'p:Scopes'),
    'empty scopes': probeXml({ scopes: ' ' }),
    'no matching rule': replaced(` MatchBy="${STRCMP0}"`, ''),
    'another matching rule': probeXml({ matchBy: `${WSD}/rfc2396` }),
    'the rule of version 2 for version 1': probeXml({ matchBy: V2_RULE }),
    'the rule of version 1 for version 2': probeXml({ ...v2, matchBy: STRCMP0, scopes: scope(32, 1, 32) }),
    'an ID that is not hexadecimal': probeXml({ scopes: `${A.slice(1)}g` }),
    'an ID that is too short': probeXml({ scopes: A.slice(2) }),
    'an ID that is too long': probeXml({ scopes: `${A}00` }),
    'an ID of odd length': probeXml({ scopes: A.slice(1) }),
    'one bad ID among good ones': probeXml({ scopes: `${A} ${B.slice(2)} ${B}` }),
    'base64 in version 1': probeXml({ scopes: scope(32, 1, 32) }),

    'hexadecimal in version 2': probeXml({ ...v2, scopes: `${A}0` }),
    'bad base64': probeXml({ ...v2, scopes: `${scope(32, 1, 32).slice(0, -1)}*` }),
    'base64 without its end': probeXml({ ...v2, scopes: scope(32, 1, 32).replace(/=+$/, '') }),
    base64url: probeXml({ ...v2, scopes: '-_-_' }),
    'base64 in two words': probeXml({ ...v2, scopes: `${scope(32, 1, 32)} ${scope(32, 1, 32)}` }),
    'a scope without a head': probeXml({ ...v2, scopes: 'ACA=' }),
    'a scope of nothing': probeXml({ ...v2, scopes: scope(32, 0, 0) }),
    'a scope with fewer IDs than it says': probeXml({ ...v2, scopes: scope(32, 2, 32) }),
    'a scope with more IDs than it says': probeXml({ ...v2, scopes: scope(32, 1, 64) }),
    'a scope cut short': probeXml({ ...v2, scopes: scope(32, 1, 31) }),
    'a scope with IDs of a length there is not': probeXml({ ...v2, scopes: scope(33, 1, 33) }),
    'a scope with IDs of no bytes': probeXml({ ...v2, scopes: scope(0, 255, 0) }),

    'an answer to nothing': matchXml({ relatesTo: undefined }),
    'an answer to XML': matchXml({ relatesTo: '&lt;x&gt;' }),
    'the action of an answer, the body of a probe': matchXml({ body: '<d:Probe/>' }),
    'more matches than any peer has': matchXml({ copies: 17 }),
    'an answer without scopes': matchXml().replace(/<d:Scopes>.*<\/d:Scopes>/, ''),
    'an answer with two scopes': matchXml().replace('<d:XAddrs>', '<d:Scopes/><d:XAddrs>'),
    'an answer without addresses': matchXml().replace(/<d:XAddrs>.*<\/d:XAddrs>/, ''),
    'an answer with too many addresses': matchXml({ places: '10.0.0.1:80 '.repeat(17) }),
    'an answer without data': matchXml().replace(/<p:PeerDistData>.*<\/p:PeerDistData>/, ''),
    'an answer with data of another namespace': matchXml({ data: '<d:BlockCount>00000001</d:BlockCount>' }),
    'two block counts': matchXml({ data: '<p:BlockCount>00000001</p:BlockCount>'.repeat(2) }),
    'fewer counts than segments': matchXml({ scopes: `${A} ${B}` }),
    'more counts than segments': matchXml({ data: `<p:BlockCount>${'00000001'.repeat(2)}</p:BlockCount>` }),
    'counts of 4 digits': matchXml({ data: '<p:BlockCount>0001</p:BlockCount>' }),
    'counts that are not hexadecimal': matchXml({ data: '<p:BlockCount>0x000001</p:BlockCount>' }),
    'availability that is not base64': matchXml({ types: 'PeerDistDataV2', scopes: '*', data: '' }),
    'ages that are not base64': matchXml({
      types: 'PeerDistDataV2',
      scopes: 'wA==',
      data: '<p:SegmentAges>*</p:SegmentAges>',
    }),

    'too many elements': probeXml({ header: '<x/>'.repeat(1_100) }),
    'elements too deep': probeXml({ header: `${'<x>'.repeat(31)}${'</x>'.repeat(31)}` }),
  };
  for (const [name, text] of Object.entries(cases)) test.equal(outcome(text), MALFORMED, name);
  test.equal(outcome(probeXml()), 'accepted as probe', 'and what they were made from is accepted');
  test.equal(outcome(probeXml({ ...v2, scopes: scope(32, 1, 32) })), 'accepted as probe');
  test.equal(outcome(matchXml()), 'accepted as probeMatches');
  test.equal(outcome(probeXml({ messageId: 'a'.repeat(128) })), 'accepted as probe');
  test.equal(outcome(matchXml({ copies: 16 })), 'accepted as probeMatches');
  test.equal(outcome(matchXml({ places: '10.0.0.1:80 '.repeat(16) })), 'accepted as probeMatches');
  test.equal(outcome(probeXml({ header: '<x/>'.repeat(1_000) })), 'accepted as probe');
  test.equal(outcome(probeXml({ header: `${'<x>'.repeat(30)}${'</x>'.repeat(30)}` })), 'accepted as probe');
});

await t.test('a datagram cut anywhere is malformed', async (test) => {
  for (const { name, xml } of vectors) {
    const whole = Buffer.from(xml);
    const others = new Set<string>();
    for (let length = 0; length < whole.byteLength; length += 1) others.add(outcome(whole.subarray(0, length)));
    test.same([...others], [MALFORMED], name);
  }
});

await t.test('an answer carries nothing of a stranger but its message ID', async (test) => {
  for (const messageId of ['a', 'urn:uuid:x', '-._:', 'a'.repeat(128)]) {
    const probe = probeOf(probeXml({ messageId }));
    const answer = encodeProbeMatches(SENDER, probe.messageId, {
      addresses: [PLACE],
      holdings: { version: 1, blockCounts: new Map(probe.segmentIds.map((each) => [each, 1])) },
    });
    test.equal(matchesOf(answer).relatesTo, messageId);
    test.ok(readAsIpxe(answer));
  }
});

await t.test('fuzz: never anything but a message, nothing, or a PeerDistError', async (test) => {
  const outcomes: Record<string, number> = {};
  const check = (datagram: Uint8Array): void => {
    const what = outcome(datagram);
    if (what.startsWith('threw')) throw new Error(what);
    outcomes[what] = (outcomes[what] ?? 0) + 1;
  };
  const bases = [...vectors.map(({ xml }) => xml), ipxeProbe(), probeXml(), matchXml()].map((text) =>
    Buffer.from(text),
  );
  const scrap = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 3 }).map((bytes) => Buffer.from(bytes)),
    fc
      .constantFrom(
        '<',
        '>',
        '"',
        "'",
        '&',
        ';',
        '/',
        '<!--',
        '-->',
        '<![CDATA[',
        ']]>',
        '<?',
        '&#',
        ' ',
        ':',
        'xmlns=""',
        '',
      )
      .map((text) => Buffer.from(text)),
  );
  const edit = fc.record({ at: fc.nat(2_000), drop: fc.nat(6), put: scrap });
  const mutant = fc
    .tuple(fc.constantFrom(...bases), fc.array(edit, { minLength: 1, maxLength: 3 }))
    .map(([base, edits]) => {
      let text: Uint8Array = base;
      for (const { at, drop, put } of edits) {
        const from = at % text.byteLength;
        text = Buffer.concat([text.subarray(0, from), put, text.subarray(from + drop)]);
      }
      return text;
    });
  fc.assert(fc.property(mutant, check), { numRuns: 6_000, seed: 20_260_201 });
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), check), { numRuns: 1_000, seed: 20_260_202 });
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 40 }), (text) =>
      check(Buffer.from(probeXml({ scopes: text }))),
    ),
    {
      numRuns: 500,
      seed: 20_260_203,
    },
  );
  for (const what of ['accepted as probe', 'accepted as probeMatches', MALFORMED, 'undefined'])
    test.ok((outcomes[what] ?? 0) > 20, `${what}: ${outcomes[what]}`);
});

await t.test('work grows with the bytes of a datagram and no faster', async (test) => {
  const shapes: Readonly<Record<string, (size: number) => string>> = {
    'many IDs': (size) => probeXml({ scopes: `${A} `.repeat(size / 65) }),
    'many type names': (size) =>
      probeXml({ body: `<d:Probe><d:Types>${'p:X '.repeat(size / 4)}</d:Types>${SCOPES}</d:Probe>` }),
    'types inside elements that are as deep as they may be': (size) =>
      `${'<x>'.repeat(28)}<Types xmlns:a="urn:a">${'a:X '.repeat(size / 8)}</Types>`,
    'attributes inside elements that are as deep as they may be': (size) =>
      `<r xmlns:a="urn:a">${'<x>'.repeat(28)}<y ${Array.from({ length: size / 16 }, (_, at) => `a:n${at}=""`).join(' ')}/>`,
    'white space': (size) => probeXml({ scopes: ' \n'.repeat(size / 2) }),
    references: (size) => probeXml({ scopes: '&#65;'.repeat(size / 5) }),
  };
  for (const [name, make] of Object.entries(shapes)) {
    const sizes = [4, 8, 16, 32].map((kib) => kib * 1_000);
    test.ok(Buffer.byteLength(make(MAX_DATAGRAM_BYTES)) > MAX_DATAGRAM_BYTES / 2, 'as large as is read at all');
    const exponent = exponentOf(sizes, (size) => {
      const datagram = Buffer.from(make(size));
      return () => outcome(datagram);
    });
    test.ok(exponent < 1.5, `${name}: exponent ${exponent.toFixed(2)}`);
  }
});

// --- amplification ---------------------------------------------------------------------------------------------------------------

/** Bytes an answer may be longer than the tersest probe that gets it: what XML and addressing cost. */
const MAX_GROWTH_BYTES = 800;
/** And for each segment of version 1, which has its count behind it. */
const MAX_GROWTH_PER_SEGMENT = 8;

await t.test(
  'an answer is at most 800 bytes and 8 a segment longer than its probe, however terse that is',
  async (test) => {
    const place: PeerAddress = { address: 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', port: 65_535 };
    const sender: Sender = { ...SENDER, instanceId: 0xffff_ffff, messageNumber: Number.MAX_SAFE_INTEGER };
    /** The shortest XML we found that is still a probe. */
    const terse = (types: string, matchBy: string, scopes: string): string =>
      `<e:Envelope xmlns:e="${SOAP}"><e:Header xmlns="${WSA}"><Action>${WSD}/Probe</Action><MessageID>a</MessageID>` +
      `</e:Header><e:Body><Probe xmlns="${WSD}"><Types xmlns:p="${PEERDIST}">p:${types}</Types>` +
      `<Scopes MatchBy="${matchBy}">${scopes}</Scopes></Probe></e:Body></e:Envelope>`;
    let greatest = 0;
    for (const count of [1, 2, 10, 100, 255]) {
      const segmentIds = Array.from({ length: count }, (_, index) => id(index));
      const v2 = Buffer.from(encodeProbe({ messageId: 'a', version: 2, segmentIds })).toString();
      const [, scope = ''] = /Rule">([^<]*)</.exec(v2) ?? [];
      const probes = [
        ipxeProbe().replace(/(strcmp0">)[^<]+/, `$1${segmentIds.join(' ')}`),
        terse('PeerDistData', STRCMP0, segmentIds.join(' ')),
        // A segment that is asked about twice is listed once.
        terse('PeerDistData', STRCMP0, [...segmentIds, ...segmentIds].join(' ')),
        terse('PeerDistDataV2', V2_RULE, scope),
      ];
      for (const text of probes) {
        const probe = probeOf(text);
        const answer = encodeProbeMatches(sender, probe.messageId, {
          addresses: [place],
          holdings:
            probe.version === 1
              ? { version: 1, blockCounts: new Map(probe.segmentIds.map((each) => [each, 512])) }
              : {
                  version: 2,
                  availability: probe.segmentIds.map(() => 'all' as const),
                  ages: probe.segmentIds.map((_, index) => ({ index, ageMs: 1 })),
                },
        });
        const growth = answer.byteLength - Buffer.byteLength(text);
        const bound = MAX_GROWTH_BYTES + (probe.version === 1 ? MAX_GROWTH_PER_SEGMENT * count : 0);
        test.ok(growth <= bound, `version ${probe.version}, ${count} segments: ${growth} bytes more`);
        greatest = Math.max(greatest, answer.byteLength / Buffer.byteLength(text));
      }
    }
    test.ok(greatest < 2.5, `at most ${greatest.toFixed(2)} times as long`);
  },
);
