/** `peerdist preheat`: what it finds to ask for, that every answer is counted as what it is, and that nothing a stranger lists does harm. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createSecureContext, TLSSocket } from 'node:tls';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { isPeerDistError } from '../../lib/errors.ts';
import { PeerDist } from '../../lib/peerdist/index.ts';
import { createContentServer } from '../../plugins/content-server/index.ts';
import { keptCertificate } from '../../plugins/hosted-cache/certificate.ts';
import { parsePackages } from '../../plugins/standalone/preheat/apt-packages.ts';
import { parseRelease } from '../../plugins/standalone/preheat/apt-release.ts';
import { unpacked } from '../../plugins/standalone/preheat/document.ts';
import type { PreheatReport } from '../../plugins/standalone/preheat/report.ts';
import { parseSitemap } from '../../plugins/standalone/preheat/sitemap.ts';
import {
  ask,
  type Finished,
  inTime,
  listen,
  Origin,
  type OriginFile,
  Proxy,
  run,
  COMMAND,
  startBranch,
  startReverse,
  TEST_SECRET,
  V2_REQUEST,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { runInside } from '../support/spoken.ts';

const NEVER = new Promise<void>(() => {});
const URLSET = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"';

function preheat(args: readonly string[], stopRequested = NEVER): Promise<Finished> {
  return inTime(
    runInside(['preheat', ...args], { stopRequested, environment: {} }),
    `preheat ${args.join(' ')}`,
    20_000,
  );
}

/** Its report, and how it ended. */
async function reportOf(
  args: readonly string[],
  stopRequested = NEVER,
): Promise<PreheatReport & { code: number | null }> {
  const { code, stdout, stderr } = await preheat([...args, '--json'], stopRequested);
  if (stdout === '') throw new Error(stderr);
  return { ...(JSON.parse(stdout) as PreheatReport), code };
}

const sha256 = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex');
const reasons = ({ failures }: PreheatReport): string[] => failures.map(({ reason }) => reason);
const gets = (origin: Origin): string[] => origin.requests.map(({ target }) => target).toSorted();

function urlset(...locations: readonly string[]): string {
  return `<urlset ${URLSET}>${locations.map((each) => `<url><loc>${each}</loc></url>`).join('')}</urlset>`;
}

function index(...locations: readonly string[]): string {
  return `<sitemapindex ${URLSET}>${locations.map((each) => `<sitemap><loc>${each}</loc></sitemap>`).join('')}</sitemapindex>`;
}

t.test('through a branch: everything is asked for once, and is there the next time', async (t) => {
  const files = [1, 2, 3, 4, 5, 6].map((seed) => seededBytes(seed, 100_000 + seed));
  const origin = await Origin.start(
    t,
    Object.fromEntries(
      files.map((body, at): [string, OriginFile] => [
        `/${at}`,
        // The last one has to be asked about each time.
        { body, etag: `"${at}"`, headers: { 'cache-control': at === 5 ? 'no-cache' : 'max-age=3600' } },
      ]),
    ),
  );
  const head = await startReverse(t, origin);
  const branch = await startBranch(t);
  const urls = files.map((_, at) => `${head.url}/${at}`);
  const bytes = files.reduce((sum, body) => sum + body.byteLength, 0);

  const first = await reportOf(['--proxy', branch.authority, ...urls, `${urls[0]}#again`]);
  t.match(first, { code: 0, urls: 6, bytes, fetched: 6, alreadyThere: 0, failed: 0, notAsked: 0, endedEarly: false });
  await branch.remembered(6);
  const asked = origin.requests.length;
  const second = await reportOf(['--proxy', `http://${branch.authority}/`, ...urls]);
  t.match(second, { code: 0, bytes, fetched: 0, alreadyThere: 6, confirmed: 1 });
  t.equal(origin.requests.length, asked + 1, 'only what must be asked about');
  t.strictSame(
    second.contentInformation,
    { ready: 0, missing: 0 },
    'a branch makes no hashes, and is not asked for any',
  );

  const { code, stdout, stderr } = await preheat(['--proxy', branch.authority, ...urls, `${head.url}/none`]);
  t.equal(code, 1, 'one is not there');
  t.match(stdout, /already there\s+│\s+6\s/);
  t.match(stdout, /of them, the origin was asked\s+│\s+1\s/);
  t.match(stdout, /failed\s+│\s+1\s/);
  t.match(stdout, `${head.url}/none: the answer is 404`);
  t.match(stderr, /^7 of 7 URLs, 586\.\d KiB$/m, 'without a terminal a line now and then');
});

t.test('at a head: the hashes are ready before anybody wants them', async (t) => {
  const origin = await Origin.start(t, {
    '/big': { body: seededBytes(1, 300_000), etag: '"1"' },
    '/small': { body: seededBytes(2, 1_000), etag: '"2"' },
    '/private': { body: seededBytes(3, 300_000), etag: '"3"', headers: { 'cache-control': 'no-store' } },
  });
  const head = new Proxy();
  const peerdist = await PeerDist.open({
    serverSecret: TEST_SECRET,
    components: { contentInformationStore: head.contentInformationStore },
  });
  t.teardown(() => peerdist.close());
  await head.run(t, createContentServer({ peerdist }));
  const urls = ['/big', '/small', '/private'].map((path) => `${origin.url}${path}`);

  const without = await reportOf(['--proxy', head.authority, '--no-hash', ...urls]);
  t.equal(without.contentInformation, undefined);
  const before = await ask(head.port, urls[0] as string, { fields: V2_REQUEST });
  t.equal(before.headers['content-encoding'], undefined, 'who only reads has no hashes made');
  origin.requests.length = 0;
  // More than fits on the way: only who reads it to its end has it hashed.
  origin.resources.set('/big', { body: seededBytes(4, 20_000_000), etag: '"4"' });
  const report = await reportOf(['--proxy', head.authority, ...urls]);
  t.match(report, { code: 0, failed: 0, fetched: 3, bytes: 20_301_000 }, 'a body without hashes is no failure');
  t.strictSame(report.contentInformation, { ready: 1, missing: 2 });
  const after = await ask(head.port, urls[0] as string, { fields: V2_REQUEST });
  t.equal(after.headers['content-encoding'], 'peerdist');
  t.match((await preheat(['--proxy', head.authority, ...urls])).stdout, /content information ready\s+│\s+1 of 3\s/);
});

t.test('sitemaps: indexes, packed ones, loops, strangers', async (t) => {
  const origin = await Origin.start(t);
  const { url } = origin;
  const put = (path: string, body: string | Uint8Array): void => void origin.resources.set(path, { body });
  put(
    '/sitemap.xml',
    index(
      `${url}/a.xml.gz`,
      `${url}/b.xml`,
      `${url}/broken.xml`,
      `${url}/sitemap.xml`,
      `${url}/none.xml`,
      'http://other.example/c.xml',
    ),
  );
  put('/a.xml.gz', gzipSync(`<?xml version="1.0"?>${urlset(`${url}/1`, `\n ${url}/2?a=1&amp;b=2#part `)}`));
  put(
    '/b.xml',
    `<s:urlset xmlns:s="urn:sitemap" xmlns:i="urn:image"><s:url><i:image><s:loc>${url}/picture</s:loc><i:loc>${url}/picture</i:loc></i:image>` +
      `<s:loc><![CDATA[${url}/3]]></s:loc></s:url><s:url><s:loc>http://other.example/4</s:loc></s:url><s:url><s:loc>ftp://other.example/</s:loc></s:url>` +
      `<s:url><s:loc>http://user:word@127.0.0.1:${origin.port}/5</s:loc></s:url><s:url><s:loc>/6</s:loc></s:url><s:url><s:loc>${url}/${'x'.repeat(5_000)}</s:loc></s:url></s:urlset>`,
  );
  put('/broken.xml', `<urlset ${URLSET}><url><loc>${url}/lost</loc></url><url>`);
  for (const path of ['/1', '/2?a=1&b=2', '/3']) put(path, path);
  const branch = await startBranch(t);
  const report = await reportOf(['--proxy', branch.authority, '--sitemap', `${url}/sitemap.xml`]);
  t.match(report, { code: 1, urls: 3, fetched: 3, failed: 2 });
  t.strictSame(report.leftOut, { 'of another host': 2, 'no http or https URL': 4 });
  t.strictSame(reasons(report), ['not well-formed XML', 'the answer is 404']);
  t.strictSame(
    gets(origin),
    ['/1', '/2?a=1&b=2', '/3', '/a.xml.gz', '/b.xml', '/broken.xml', '/none.xml', '/sitemap.xml'],
    'each once, nothing of a sitemap that is not whole, no picture',
  );

  const other = await Origin.start(t, { '/4': { body: 'four' } });
  put('/any.xml', urlset(`${other.url}/4`, `${url}/1`));
  const any = await reportOf([
    '--proxy',
    branch.authority,
    '--sitemap',
    `${url}/any.xml`,
    '--any-host',
    '--match',
    '/4$',
  ]);
  t.match(any, { code: 0, urls: 1, fetched: 1, leftOut: { 'does not match': 1 } });
  t.strictSame(gets(other), ['/4']);
  const none = await reportOf(['--proxy', branch.authority, '--sitemap', `${url}/any.xml`, '--match', 'typo']);
  t.match(none, { code: 1, urls: 0, failed: 0 }, 'nothing to do is not what was meant');

  // An index that leads ever deeper.
  for (let depth = 0; depth < 9; depth += 1) put(`/deep${depth}.xml`, index(`${url}/deep${depth + 1}.xml`));
  origin.requests.length = 0;
  const deep = await reportOf(['--proxy', branch.authority, '--sitemap', `${url}/deep0.xml`]);
  t.strictSame([deep.code, ...reasons(deep)], [1, 'more than 4 indexes in each other']);
  t.equal(origin.requests.length, 4);
});

t.test('sitemaps that are none', async (t) => {
  const failure = async (body: string | Uint8Array, pieceBytes = 64 * 1024): Promise<string> => {
    const pieces = async function* (): AsyncGenerator<Uint8Array, void> {
      const bytes = Buffer.from(body as Uint8Array);
      for (let at = 0; at < bytes.byteLength; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
    };
    try {
      const { locations } = await parseSitemap(unpacked(pieces(), 50 * 1024 * 1024));
      return `none: ${locations.length} locations`;
    } catch (error) {
      if (!isPeerDistError(error)) throw error;
      return error.message;
    }
  };
  const whole = urlset('http://a/1', 'http://a/\u00e4');
  t.equal(await failure(whole, 1), 'none: 2 locations', 'byte by byte');
  t.equal(await failure(gzipSync(whole), 1), 'none: 2 locations');
  for (let at = 1; at < whole.length; at += 7)
    t.equal(await failure(Buffer.from(whole).subarray(0, at)), 'not well-formed XML', `cut at ${at}`);
  const bomb = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;&x;&x;">]>';
  t.equal(await failure(`${bomb}${urlset('http://a/&y;')}`), 'a document type, which no sitemap has');
  t.equal(await failure('<rss version="2.0"><channel/></rss>'), 'not a sitemap: it begins with <rss>');
  t.equal(await failure('<html><p>Not found<br></html>'), 'not a sitemap: it begins with <html>');
  t.equal(await failure(''), 'not well-formed XML');
  t.equal(await failure(Buffer.from(urlset('http://a/\u00e4'), 'latin1')), 'not UTF-8');
  t.equal(await failure(`<urlset ${URLSET}>${'<a>'.repeat(100_000)}`), 'elements too deep');
  t.equal(await failure(urlset(...Array<string>(50_001).fill('http://a/'))), 'a sitemap of more than 50000 entries');
  t.equal(await failure(gzipSync(whole).subarray(0, 60)), 'not whole gzip');
  const packed = gzipSync(`<urlset ${URLSET}><url><loc>${'x'.repeat(60 * 1024 * 1024)}`);
  t.ok(packed.byteLength < 100_000);
  t.equal(await failure(packed), 'larger than 50.0 MiB unpacked');
});

/** A repository with two packages. */
interface Repository {
  readonly origin: Origin;
  readonly release: string;
  /** Puts a file, and lists it. */
  readonly list: (path: string, body: string | Uint8Array, listed?: string | Uint8Array) => void;
}

async function startRepository(t: Test): Promise<Repository> {
  const origin = await Origin.start(t);
  const lines: string[] = [];
  const list: Repository['list'] = (path, body, listed = body) => {
    origin.resources.set(`/debian/dists/stable/${path}`, { body });
    lines.push(` ${sha256(listed)} ${Buffer.byteLength(listed)} ${path}`);
    origin.resources.set('/debian/dists/stable/Release', {
      body: `Origin: Test\nComponents: main contrib\nArchitectures: all amd64\nMD5Sum:\n 00 1 main/x\nSHA256:\n${lines.join('\n')}\n`,
    });
  };
  return { origin, release: `${origin.url}/debian/dists/stable/Release`, list };
}

function paragraph(filename: string, body: string | Uint8Array, listed = body): string {
  return `Package: x\nDescription: y\n Filename: not this\nFilename: ${filename}\nSize: ${Buffer.byteLength(listed)}\nSHA256: ${sha256(listed)}\n`;
}

t.test('repositories: the packages of a Release file, checked', async (t) => {
  const { origin, release, list } = await startRepository(t);
  const body = seededBytes(5, 70_000);
  const put = (path: string, content: string | Uint8Array = body): void =>
    void origin.resources.set(path, { body: content });
  list(
    'main/binary-amd64/Packages.gz',
    gzipSync(
      [
        paragraph('pool/a/libstdc++6_1.2~rc1+b1_amd64.deb', body),
        paragraph('pool/b/b.deb', 'other', body),
        paragraph('pool/c/c.deb', 'c', 'changed'),
        paragraph('pool/d/d.deb', 'd'),
        paragraph('pool/../../../secret', 'x'),
        paragraph('/etc/passwd', 'x'),
        paragraph('pool\\..\\..\\secret', 'x'),
      ].join('\n'),
    ),
  );
  list('main/binary-all/Packages', paragraph('pool/e/e_all.deb', 'e'));
  list('contrib/binary-amd64/Packages.xz', 'not read');
  put('/debian/pool/a/libstdc%2b%2b6_1.2%7erc1%2bb1_amd64.deb');
  put('/debian/pool/b/b.deb', seededBytes(6, 70_000));
  put('/debian/pool/c/c.deb', 'c');
  put('/debian/pool/d/d.deb', 'd');
  put('/debian/pool/e/e_all.deb', 'e');
  const branch = await startBranch(t);
  const args = ['--proxy', branch.authority, '--apt-release', release];
  const report = await reportOf([...args, '--architecture', 'amd64', '--architecture', 'all']);
  t.match(report, { code: 1, urls: 5, fetched: 3, failed: 5 });
  t.strictSame(
    reasons(report).toSorted(),
    [
      ...Array<string>(3).fill('a name that leads out of the repository'),
      '1 bytes, and the list says 7',
      'not the bytes that the list says: another SHA-256',
    ].toSorted(),
  );
  t.ok(
    origin.asked('/debian/pool/a/libstdc%2b%2b6_1.2%7erc1%2bb1_amd64.deb').length === 1,
    'by the very text that apt asks by',
  );
  t.notMatch(gets(origin).join(' '), /secret|passwd/);

  t.match(await reportOf([...args, '--architecture', 'all']), { code: 0, urls: 1, fetched: 1 });
  t.match(await reportOf([...args, '--architecture', 'amd64', '--match', '/d/']), { failed: 3, urls: 1, fetched: 1 });
  const failure = async (...more: readonly string[]): Promise<string[]> => reasons(await reportOf([...args, ...more]));
  t.strictSame(await failure('--component', 'non-free'), ['no component non-free: there are main, contrib']);
  t.strictSame(await failure('--architecture', 'sparc'), ['no architecture sparc in main: there are all, amd64']);
  t.strictSame(await failure('--component', 'contrib', '--architecture', 'amd64'), [
    'contrib/binary-amd64/Packages is there as .xz only, which cannot be read here',
  ]);
});

t.test('repositories that change meanwhile, or are none', async (t) => {
  const { origin, release, list } = await startRepository(t);
  const branch = await startBranch(t);
  const good = paragraph('pool/e.deb', 'e');
  origin.resources.set('/debian/pool/e.deb', { body: 'e' });
  list('main/binary-amd64/Packages.gz', gzipSync(good), gzipSync(`${good}\n${good}`));
  list('main/binary-arm64/Packages', `${good}${'x'.repeat(1_000)}`, good);
  list('main/binary-i386/Packages.gz', gzipSync(good).subarray(0, 40));
  list('main/binary-armhf/Packages', 'x'.repeat(2 * 1024 * 1024));
  list('main/binary-all/Packages', good);
  const architectures = ['amd64', 'arm64', 'i386', 'armhf', 'all'].flatMap((name) => ['--architecture', name]);
  const report = await reportOf(['--proxy', branch.authority, '--apt-release', release, ...architectures]);
  const changing = 'not the index that the Release file lists: the mirror may be changing';
  t.strictSame(reasons(report), [
    changing,
    changing,
    'not whole gzip',
    'not an index of packages: a line without an end',
  ]);
  t.match(report, { urls: 1, fetched: 1 }, 'what is right is read all the same');
  t.strictSame(
    origin.requests.filter(({ target }) => target.includes('/dists/')).map(({ headers }) => headers['cache-control']),
    Array(6).fill('no-cache'),
    'the newest lists, also from a cache',
  );

  origin.resources.set('/debian/dists/stable/InRelease', { body: '<html>Welcome</html>' });
  const html = await reportOf([
    '--proxy',
    branch.authority,
    '--apt-release',
    `${origin.url}/debian/dists/stable/InRelease`,
  ]);
  t.strictSame([html.code, ...reasons(html)], [1, 'not a Release file: it lists no SHA256']);

  const hash = 'ab'.repeat(32);
  const signed = `-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nComponents: main\nSHA256:\n ${hash.toUpperCase()}  17 main/binary-all/Packages\n- --dashed\n-----BEGIN PGP SIGNATURE-----\nSHA256:\n ${hash} 1 forged\n-----END PGP SIGNATURE-----\n`;
  for (const text of [signed, signed.replaceAll('\n', '\r\n')])
    t.strictSame([...parseRelease(text).files], [['main/binary-all/Packages', { bytes: 17, sha256: hash }]]);
  t.throws(() => parseRelease(signed.slice(0, 200)), { message: 'an InRelease file that is cut short' });
  const bytes = Buffer.from(`${good}\n${paragraph('pool/\u00e4 %.deb', 'x')}`);
  const { items } = await parsePackages(
    (async function* () {
      for (const byte of bytes) yield Uint8Array.of(byte);
    })(),
    'http://host/debian/',
    () => true,
  );
  t.strictSame(
    items.map(({ url }) => url),
    ['http://host/debian/pool/e.deb', 'http://host/debian/pool/%c3%a4%20%25.deb'],
    'byte by byte',
  );
});

/** A proxy that answers by a path, as a test says. */
async function startProxy(
  t: Test,
  answer: (path: string, request: IncomingMessage, response: ServerResponse) => void,
): Promise<string> {
  const server = createServer((request, response) =>
    answer(new URL(request.url as string).pathname, request, response),
  );
  return `127.0.0.1:${await listen(t, server)}`;
}

t.test('answers that are no good', async (t) => {
  const proxy = await startProxy(t, (path, _, response) => {
    const hops = Number(path.slice(1));
    const redirect = (status: number, location?: string): void =>
      void response.writeHead(status, location === undefined ? {} : { location }).end();
    if (hops === 0) response.end('here');
    else if (hops > 0) redirect(302, `/${hops - 1}`);
    else if (path === '/secret') redirect(301, 'https://h/0');
    else if (path === '/lost') redirect(307);
    else if (path === '/cut') response.writeHead(200, { 'content-length': 1_000 }).write('x', () => response.destroy());
    else if (path === '/large') response.writeHead(200, { 'content-length': 5_000 }).write('x');
    else if (path === '/endless') response.write('x'.repeat(5_000));
    else if (path === '/stalls') response.writeHead(200, { 'content-length': 1_000 }).write('x');
    else if (path === '/refused')
      response.writeHead(403, { 'content-type': 'text/plain; charset=utf-8' }).end('not for you\u001b[2J\nmore');
    else if (path === '/page') response.writeHead(503, { 'content-type': 'text/html' }).end('<p>busy');
    else if (path === '/part') response.writeHead(206).end('part');
    // Anything else is never answered.
  });
  const at = (...paths: readonly string[]): string[] => ['--proxy', proxy, ...paths.map((path) => `http://h/${path}`)];
  t.match(await reportOf(at('5')), { code: 0, fetched: 1, bytes: 4 });
  t.strictSame(reasons(await reportOf(at('6'))), ['more than 5 redirects']);
  t.strictSame(reasons(await reportOf(at('secret'))), ['a redirect to https://h']);
  t.strictSame(reasons(await reportOf(at('lost'))), ['a redirect to no URL']);
  t.strictSame(reasons(await reportOf(at('part'))), ['the answer is 206']);
  t.strictSame(reasons(await reportOf(at('refused', 'page'))), [
    'the answer is 403: not for you?[2J',
    'the answer is 503',
  ]);
  t.match(reasons(await reportOf(at('cut'))), [/^the answer broke off: /]);
  const silent = ['not a byte for 0.2 s'];
  t.strictSame(reasons(await reportOf([...at('silent'), '--timeout', '200ms'])), silent);
  t.strictSame(reasons(await reportOf([...at('stalls'), '--timeout', '200ms'])), silent);
  const large = await reportOf([...at('large', 'endless', '0'), '--max-size', '4000']);
  t.match(large, { code: 0, fetched: 1, failed: 0, leftOut: { 'too large': 2 } }, 'that is what was asked for');
});

t.test('many at a time, and no more', async (t) => {
  const REQUESTS = 300;
  let limit = 4;
  let [most, left] = [0, REQUESTS];
  const waiting: ServerResponse[] = [];
  const seen = new Set<string>();
  const proxy = await startProxy(t, (_, { headers }, response) => {
    seen.add(headers['accept-encoding'] as string);
    most = Math.max(most, waiting.push(response));
    // Nobody is answered before as many ask as may.
    if (waiting.length < Math.min(limit, left)) return;
    left -= waiting.length;
    for (const each of waiting.splice(0)) each.end('x');
  });
  const urls = Array.from({ length: REQUESTS }, (_, number) => `http://h/${number}`);
  const warnings: string[] = [];
  const note = ({ name }: Error): void => void warnings.push(name);
  process.on('warning', note);
  t.teardown(() => process.off('warning', note));
  t.match(await reportOf(['--proxy', proxy, ...urls]), { code: 0, fetched: REQUESTS });
  t.equal(most, 4);
  [limit, left] = [40, REQUESTS];
  const codings = ['--accept-encoding', 'gzip, br'];
  t.match(await reportOf(['--proxy', proxy, '--concurrency', '40', ...codings, ...urls]), { code: 0 });
  t.equal(most, 40);
  t.strictSame([...seen], ['identity', 'gzip, br']);
  t.strictSame(warnings, []);
});

async function listenOn(server: Server): Promise<number> {
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return (server.address() as AddressInfo).port;
}

t.test('a proxy that goes away', async (t) => {
  // A kept connection may be closed just as it is used again: that is nobody's failure.
  const closing = createTcpServer((socket: Socket) => {
    let requests = 0;
    socket.on('error', () => {});
    socket.on('data', () => {
      requests += 1;
      if (requests === 1) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx');
      else socket.resetAndDestroy();
    });
  });
  const port = await listenOn(closing);
  t.teardown(() => closing.close());
  const urls = Array.from({ length: 10 }, (_, number) => `http://h/${number}`);
  t.match(await reportOf(['--proxy', `${port}`, '--concurrency', '1', ...urls]), { code: 0, fetched: 10 });

  // It ends in the middle: what was done is reported, and the rest is not tried one by one.
  const leaving: Server = createServer((_, response) => {
    response.writeHead(200, { connection: 'close' }).end('x');
    leaving.close();
  });
  const away = await listenOn(leaving);
  const report = await reportOf(['--proxy', `${away}`, '--concurrency', '1', ...urls]);
  t.match(report, { code: 1, fetched: 1, failed: 1, notAsked: 8, endedEarly: true });
  t.match(reasons(report), [/^no proxy answers at 127\.0\.0\.1:\d+: ECONNREFUSED$/]);
  for (const more of [urls, ['--sitemap', 'http://h/sitemap.xml']]) {
    const { code, stderr } = await preheat(['--proxy', `${away}`, ...more]);
    t.equal(code, 2, 'where nothing could be done, one line says why');
    t.match(stderr, /^peerdist: no proxy answers at 127\.0\.0\.1:\d+: ECONNREFUSED$/m);
  }
});

t.test('asked to end, it says how far it came', async (t) => {
  let stop!: () => void;
  const stopRequested = new Promise<void>((resolve) => {
    stop = resolve;
  });
  const proxy = await startProxy(t, (path, _, response) => {
    if (path === '/0') response.end('x');
    else response.write('x', stop);
  });
  const urls = Array.from({ length: 10 }, (_, number) => `http://h/${number}`);
  const report = await reportOf(['--proxy', proxy, '--concurrency', '1', ...urls], stopRequested);
  t.match(report, { code: 1, fetched: 1, failed: 0, notAsked: 9, endedEarly: true });
});

t.test('https: through a proxy that reads it', async (t) => {
  const directory = t.testdir({ own: {}, other: {} });
  const { identity } = await keptCertificate(join(directory, 'own'), ['packages.example']);
  const other = await keptCertificate(join(directory, 'other'), ['packages.example']);
  const connects: string[] = [];
  let called = (): void => {};
  const inner = createServer((request, response) => {
    response.setHeader('cache-status', '"a;b, c"; fwd=miss, peerdist; hit');
    response.end(`${request.headers.host}${request.url}`);
  });
  const server = createServer().on('connect', ({ url = '' }: IncomingMessage, socket: Socket) => {
    connects.push(url);
    socket.on('error', () => {}).on('end', () => socket.destroy());
    if (url === 'silent.example:443') {
      socket.resume();
      return called();
    }
    if (url === 'stalls.example:443') return socket.resume().write('HTTP/1.1 200 OK\r\n\r\n');
    if (url !== 'packages.example:443') return socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
    socket.write('HTTP/1.1 200 Connection Established\r\n\r\n');
    const secure = new TLSSocket(socket, { isServer: true, secureContext: createSecureContext(identity) });
    secure.on('error', () => {});
    return inner.emit('connection', secure);
  });
  const port = await listen(t, server);
  const urls = ['1', '2', '3'].map((name) => `https://packages.example/${name}`);
  const args = ['--proxy', `${port}`, '--concurrency', '1', ...urls];
  const ca = (which: string): string[] => ['--proxy-ca', join(directory, which, 'hosted-cache-cert.pem')];
  t.match(await reportOf([...args, ...ca('own')]), {
    code: 0,
    alreadyThere: 3,
    bytes: 3 * 'packages.example/1'.length,
  });
  t.strictSame(connects, ['packages.example:443'], 'one connection for all');
  t.match(
    reasons(await reportOf(args)),
    Array(3).fill(/^https goes through the proxy in a tunnel that it cannot keep: .*--proxy-ca$/),
  );
  t.ok(other.isNew);
  t.match(reasons(await reportOf([...args.slice(0, 5), ...ca('other')])), [
    /^the proxy does not read packages\.example, or with an authority that is not in --proxy-ca \(.+\): a tunnel cannot be preheated$/,
  ]);
  t.strictSame(reasons(await reportOf([...args.slice(0, 4), 'https://[::1]:8443/', ...ca('own')])), [
    'the proxy answers 403 to CONNECT [::1]:8443',
  ]);
  t.match(
    reasons(await reportOf([...args.slice(0, 4), 'https://stalls.example/', '--timeout', '200ms', ...ca('own')])),
    [/^the proxy does not read stalls\.example, .*\(silent for too long\)/],
  );
  const stopRequested = new Promise<void>((resolve) => {
    called = resolve;
  });
  const left = once(server, 'connect').then(([, socket]) => once(socket as Socket, 'close'));
  const report = await reportOf([...args.slice(0, 4), 'https://silent.example/', ...ca('own')], stopRequested);
  t.match(report, { code: 1, notAsked: 1, endedEarly: true });
  await inTime(left, 'nothing is left open that would keep the process');
});

t.test('lists of URLs, and command lines that are wrong', async (t) => {
  const origin = await Origin.start(t, { '/1': { body: 'one' }, '/2': { body: 'two' } });
  const branch = await startBranch(t);
  const file = join(t.testdir({}), 'urls.txt');
  writeFileSync(
    file,
    `# what is wanted\n${origin.url}/1 ${sha256('one').toUpperCase()}\n\n${origin.url}/2 ${sha256('zwei')}\r\n${origin.url}/2\n`,
  );
  const report = await reportOf(['--proxy', branch.authority, '--urls', file, `${origin.url}/1`]);
  t.match(report, { code: 1, urls: 2, fetched: 1, failed: 1 });
  t.strictSame(reasons(report), ['not the bytes that the list says: another SHA-256']);
  const piped = await run(t, 'sh', [
    '-c',
    `echo ${origin.url}/1 | ${process.execPath} ${COMMAND} preheat --proxy ${branch.authority} --urls - --json`,
  ]);
  t.match(JSON.parse(piped.stdout), { urls: 1, fetched: 1 });

  const wrong = async (...args: readonly string[]): Promise<string> => {
    const { code, stderr } = await preheat(args);
    t.equal(code, 2, args.join(' '));
    return stderr.trim();
  };
  writeFileSync(file, `${origin.url}/1\nexample.com\n`);
  t.match(await wrong('--urls', file), 'peerdist: --urls: line 2 does not begin with an http or https URL');
  writeFileSync(file, `${origin.url}/1 abc`);
  t.match(await wrong('--urls', file), 'line 1 has something else than a SHA-256 in hex behind its URL');
  t.match(await wrong('--urls', `${file}.none`), /^peerdist: --urls: cannot read .*: ENOENT$/);
  t.match(await wrong(), 'preheat needs a URL, --urls, --sitemap or --apt-release');
  t.match(await wrong('http://user:word@h/'), 'not an http or https URL without a password');
  t.match(await wrong('--apt-release', 'http://h/debian/'), 'not the URL of a Release file like ');
  t.match(await wrong('http://h/', '--match', '('), '--match is a regular expression: (');
  t.match(await wrong('http://h/', '--timeout', '0'), '--timeout is more than 0');
  t.match(await wrong('http://h/', '--proxy', 'https://h:1'), 'not an address like 127.0.0.1:8080');
  t.match(await wrong('http://h/', '--concurrency', '0'), '--concurrency is a whole number from 1 to 256');
});
