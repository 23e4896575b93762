/** The dashboard in a real Chromium: what it says is what `/metrics` says, whoever looks can use it, and what strangers are called is text. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { type Browser, chromium, type Page } from 'playwright-core';
import t, { type Test } from 'tap';
import { ask, Origin, Role } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const CHROMIUM = '/usr/bin/chromium';
/** What keeps Chromium from looking for anybody but the page it is shown. */
const ALONE = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
/** Where the pictures go, for people. */
const PICTURES = '.tap/screenshots';
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const FILE = seededBytes(7, 3_000_000);
/** Names that would like to be more than text. */
const SITE = '<img src=x onerror="document.title=1"> Köln';

if (!existsSync(CHROMIUM)) {
  t.plan(0, 'Chromium is not installed');
  process.exit(0);
}
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ALONE });
mkdirSync(PICTURES, { recursive: true });
t.teardown(() => browser.close());

interface Office {
  readonly origin: Origin;
  readonly reverse: Role;
  readonly branch: Role;
}

async function startOffice(test: Test, options: readonly string[] = []): Promise<Office> {
  const headers = { 'cache-control': 'max-age=600' };
  const origin = await Origin.start(test, {
    '/f': { body: FILE, etag: '"f"', headers },
    '/%3Cscript%3Ealert(1)%3C/script%3E': { body: FILE, etag: '"s"', headers },
  });
  const reverse = await Role.start(test, ['reverse', '--origin', origin.url, '--secret-hex', '00'.repeat(32)]);
  const branch = await Role.start(test, ['branch', '--dashboard-names', '--site', SITE, ...options]);
  return { origin, reverse, branch };
}

/** Opens the dashboard of a service; nothing but that may be asked for. */
async function open(test: Test, role: Role, options: Parameters<Browser['newPage']>[0] = {}): Promise<Page> {
  const page = await browser.newPage(options);
  test.teardown(() => page.close());
  const base = `http://127.0.0.1:${role.adminPort}`;
  page.on('request', (request) => {
    if (!request.url().startsWith(`${base}/`) && !request.url().startsWith('data:'))
      test.fail(`asked for ${request.url()}`);
  });
  page.on('console', (message) => {
    if (message.type() === 'error' && !/401|ERR_CONNECTION_REFUSED|ERR_INCOMPLETE/.test(message.text()))
      test.fail(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => test.fail(`page: ${error.message}`));
  await page.goto(`${base}/dashboard`);
  return page;
}

async function shown(page: Page): Promise<void> {
  await page.waitForSelector('#main:not([hidden])');
  await page.waitForSelector('#plot canvas');
}

/** The value of an expression in the page, which knows a browser's names. */
function evaluate<T>(page: Page, expression: string): Promise<T> {
  return page.evaluate<T>(expression);
}

/** Rules of WCAG 2.x level AA that are broken. */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  const found = await evaluate<{ id: string; nodes: { html: string }[] }[]>(
    page,
    `axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }).then((result) => result.violations)`,
  );
  return found.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`);
}

const size = (bytes: number): string => {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  const unit = bytes === 0 ? 0 : Math.min(3, Math.floor(Math.log2(Math.abs(bytes)) / 10));
  const value = bytes / 1024 ** unit;
  return `${value.toFixed(unit === 0 || Math.abs(value) >= 100 ? 0 : 1)} ${units[unit]}`;
};

/** The rows of the table of sources, by name. */
function sources(page: Page): Promise<Record<string, string>> {
  const rows = `[...document.querySelectorAll('#sources tr')].map((row) => [...row.children].map((cell) => cell.textContent))`;
  return evaluate(page, `Object.fromEntries(${rows})`);
}

await t.test('its numbers are those of /metrics, and names are text', async (test) => {
  const { reverse, branch } = await startOffice(test);
  let requests = 0;
  for (const path of ['/f', '/%3Cscript%3Ealert(1)%3C/script%3E']) {
    // The blocks of a first download are there a moment after it.
    for (let answer = ''; !answer.includes('hit') && requests < 100; requests += 1)
      answer = String((await ask(branch.port, `${reverse.url}${path}`)).headers['cache-status']);
  }
  const label = `site="${SITE.replaceAll('"', '\\"')}"`;
  const value = async (series: string): Promise<number> =>
    (await branch.metric(series.replace('}', `,${label}}`))) ?? Number.NaN;
  const page = await open(test, branch, { viewport: { width: 1100, height: 900 }, colorScheme: 'light' });
  await shown(page);
  const delivered = {
    store: await value('peerdist_delivered_bytes_total{source="store"}'),
    origin: await value('peerdist_delivered_bytes_total{source="origin"}'),
  };
  const wan = {
    information: await value('peerdist_wan_bytes_total{kind="content_information"}'),
    missing: await value('peerdist_wan_bytes_total{kind="missing_data"}'),
    plain: await value('peerdist_wan_bytes_total{kind="plain"}'),
  };
  const saved = delivered.store + delivered.origin - wan.information - wan.missing - wan.plain;
  await page.getByText(size(saved), { exact: true }).first().waitFor();
  test.match(await sources(page), {
    'own store': size(delivered.store),
    'as it came from the origin': size(delivered.origin),
    'WAN: hashes': size(wan.information),
    'WAN: missing parts': size(wan.missing),
    'WAN: whole bodies': size(wan.plain),
    requests: String(requests),
  });
  for (const span of ['hour', 'day', 'week']) test.equal(await page.textContent(`#saved-${span}`), size(saved), span);
  test.equal(await page.textContent('h1'), `peerdist branch office · ${SITE}`);
  test.equal(await page.locator('main img, main script, h1 img').count(), 0, 'nothing but text');
  test.match(await page.textContent('#contents'), /script/);
  test.equal(await page.textContent('#concerns'), 'nothing: all is well');
  const { headers } = await ask(branch.adminPort as number, '/dashboard');
  test.match(headers['content-security-policy'], /^default-src 'none'; script-src 'self'; style-src 'self';/);
  await page.screenshot({ path: `${PICTURES}/branch-light.png`, fullPage: true });
  const office = await open(test, reverse, { colorScheme: 'dark' });
  await shown(office);
  test.match(await office.textContent('#saved-words'), /understand hashes/);
  await office.screenshot({ path: `${PICTURES}/head-office-dark.png`, fullPage: true });
});

await t.test(
  'everybody can use it: no violation of level AA, by keyboard, on a phone, light and dark',
  async (test) => {
    const { reverse, branch } = await startOffice(test);
    await ask(branch.port, `${reverse.url}/f`);
    const { devices } = await import('playwright-core');
    for (const [name, options] of [
      ['light', { colorScheme: 'light' }],
      ['dark', { colorScheme: 'dark' }],
      ['phone', { ...devices['iPhone 13'], colorScheme: 'dark' }],
    ] as const) {
      const { defaultBrowserType: _, ...rest } = options as typeof options & { defaultBrowserType?: string };
      const page = await open(test, branch, rest);
      await shown(page);
      await page.locator('#plot summary').click();
      test.same(await violations(page), [], name);
      test.equal(
        await evaluate(page, 'document.documentElement.scrollWidth > innerWidth'),
        false,
        `${name}: nothing is cut off`,
      );
      await page.screenshot({ path: `${PICTURES}/branch-${name}.png`, fullPage: true });
    }
    const page = await open(test, branch);
    await shown(page);
    await page.keyboard.press('Tab');
    test.equal(await evaluate(page, 'document.activeElement.value'), 'hour');
    await page.keyboard.press('ArrowRight');
    test.equal(await evaluate(page, `document.querySelector('input[name=span]:checked').value`), 'day');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    test.equal(await evaluate(page, `document.querySelector('#plot details').open`), true);
    test.equal(await page.locator('#plot details tr').count(), 145, 'a head and the day by ten minutes');
  },
);

await t.test('a download under way, a service that ends and comes back, and what was saved before', async (test) => {
  const state = test.testdir();
  const { origin, reverse, branch } = await startOffice(test, ['--state-dir', state]);
  await ask(branch.port, `${reverse.url}/f`);
  await ask(branch.port, `${reverse.url}/f`);
  const page = await open(test, branch);
  await shown(page);
  const before = await page.textContent('#saved-hour');
  const body = seededBytes(9, 2_000_000);
  let release = (): void => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  origin.resources.set('/held', async (_request, response) => {
    response.writeHead(200, { 'content-length': body.byteLength });
    response.write(body.subarray(0, 1_000_000));
    await released;
    response.end(body.subarray(1_000_000));
  });
  const slow = ask(branch.port, `${origin.url}/held`);
  await page.waitForSelector('#downloads progress');
  test.match(await page.textContent('#downloads'), /\/held: .* of 1\.9 MiB/);
  release();
  await slow;
  await page.locator('#downloads progress').waitFor({ state: 'detached' });
  await branch.stop();
  await page.waitForSelector('#state.bad');
  const again = await Role.start(test, ['branch', '--state-dir', state, '--admin', `127.0.0.1:${branch.adminPort}`]);
  await page.locator('#state', { hasText: 'takes requests' }).waitFor();
  test.equal(await again.metric('peerdist_delivered_bytes_total{source="store"}'), 0);
  test.equal(await page.textContent('#saved-hour'), before, 'the last hour is remembered');
  test.equal(await page.textContent('#saved'), '0 B', 'since the start');
});

await t.test('with a token: the page asks for it, and shows nothing without', async (test) => {
  const file = `${test.testdir({ token: 'a token of the office\n'.replaceAll(' ', '-') })}/token`;
  const branch = await Role.start(test, ['branch', '--admin-token', file]);
  const page = await open(test, branch);
  await page.waitForSelector('#token-form:not([hidden])');
  test.equal(await page.isHidden('#main'), true);
  test.same(await violations(page), []);
  await page.fill('#token', 'wrong');
  await page.keyboard.press('Enter');
  await page.waitForSelector('#token-form:not([hidden])');
  await page.fill('#token', 'a-token-of-the-office');
  await page.keyboard.press('Enter');
  await shown(page);
  test.equal(await page.isHidden('#token-form'), true);
});
