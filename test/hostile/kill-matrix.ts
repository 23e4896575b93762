/**
 * Branch and head office are killed at random moments while clients download, started again on the same directories, and looked over. By itself:
 *
 *   node dist/test/hostile/kill-matrix.js 200
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { begin, Origin, peerdist, Role, same } from '../support/proxies.ts';
import { pick, seededBytes, words } from '../support/random.ts';

type Owner = Parameters<typeof Role.start>[0];

export interface KillReport {
  readonly kills: number;
  /** Downloads that came to their end, and those that broke off. */
  readonly whole: number;
  readonly broken: number;
  /** Downloads with a byte that is not the origin's. */
  readonly wrong: number;
  /** Entries that `cache verify` found bad. */
  readonly bad: number;
  /** Stores that were moved aside. */
  readonly damaged: number;
}

const FILES = 24;
const CLIENTS = 6;
/** Less than all files together: what is new drives out what is old. */
const MAX_CACHE = '40MB';

/**
 * @param directory where the roles keep their state
 * @param onKill told after each
 */
export async function killMatrix(
  t: Owner,
  directory: string,
  kills: number,
  { seed = 1, onKill = () => {} }: { readonly seed?: number; readonly onKill?: (report: KillReport) => void } = {},
): Promise<KillReport> {
  const next = words(seed);
  const bodies = Array.from({ length: FILES }, (_, index) =>
    Buffer.from(seededBytes(index + 1, 1_000_000 + 170_000 * index)),
  );
  const files = bodies.map(
    (body, index) => [`/${index}`, { body, etag: `"${index}"`, headers: { 'cache-control': 'max-age=600' } }] as const,
  );
  const origin = await Origin.start(t, Object.fromEntries(files));
  const report = { kills: 0, whole: 0, broken: 0, wrong: 0, bad: 0, damaged: 0 };
  const state = ['--state-dir', directory, '--store', 'disk'];
  const startReverse = (...listen: string[]): Promise<Role> =>
    Role.start(t, ['reverse', '--origin', origin.url, '--no-admin', ...state, ...listen]);
  let reverse = await startReverse();
  const { url } = reverse;
  while (report.kills < kills) {
    const workers = 1 + pick(next, 2);
    const branch = await Role.start(t, [
      'branch',
      '--no-admin',
      '--max-cache',
      MAX_CACHE,
      '--memory',
      '4MB',
      '--workers',
      String(workers),
      ...state,
    ]);
    const end = new AbortController();
    const client = async (): Promise<void> => {
      while (!end.signal.aborted) {
        const index = pick(next, FILES);
        const outcome = await download(branch.port, `${url}/${index}`, bodies[index] as Buffer, pick(next, 3) === 0);
        report[outcome] += 1;
        // Nobody is there for the moment.
        if (outcome === 'broken') await pause(20);
      }
    };
    const clients = Array.from({ length: CLIENTS }, client);
    await pause(20 + pick(next, 900));
    report.damaged += countDamage(branch) + countDamage(reverse);
    // One time in four head office dies, else the branch: its leader, or one of its workers, whom the leader replaces.
    const victims = workersOf(branch);
    if (pick(next, 4) === 0) {
      reverse.program.child.kill('SIGKILL');
      await reverse.program.finished;
      reverse = await startReverse('--listen', new URL(url).host);
    } else if (victims.length > 0 && pick(next, 2) === 0) {
      process.kill(victims[pick(next, victims.length)] as number, 'SIGKILL');
      await pause(pick(next, 400));
    }
    branch.program.child.kill('SIGKILL');
    end.abort();
    await branch.program.finished;
    // Workers go when they hear that nobody leads them.
    while (victims.some(isAlive)) await pause(5);
    await Promise.all(clients);
    report.kills += 1;
    const { stdout, stderr } = await peerdist(t, [
      'cache',
      'verify',
      '--json',
      '--role',
      'branch',
      '--state-dir',
      directory,
    ]);
    const { bad } = JSON.parse(stdout) as { bad: number };
    report.bad += bad;
    if (/damaged/.test(stderr)) report.damaged += 1;
    onKill(report);
  }
  return report;
}

/** One client's request; what has come when the connection breaks must be right too. */
async function download(
  port: number,
  target: string,
  body: Buffer,
  isRange: boolean,
): Promise<'whole' | 'broken' | 'wrong'> {
  const first = isRange ? Math.floor(body.byteLength / 3) : 0;
  const last = isRange ? first + 200_000 : body.byteLength - 1;
  const fields = isRange ? { Range: `bytes=${first}-${last}` } : {};
  let received = Buffer.alloc(0);
  try {
    const connection = await begin(port, target, { fields: { ...fields, Connection: 'close' } });
    const head = await connection.head();
    if (head.status >= 500) return 'broken';
    if (head.status !== (isRange ? 206 : 200)) return 'wrong';
    const pieces: Buffer[] = [];
    try {
      for await (const piece of connection.body(head)) pieces.push(piece);
    } finally {
      received = Buffer.concat(pieces);
      connection.close();
    }
    const wanted = body.subarray(first, last + 1);
    if (connection.complete) return same(received, wanted) ? 'whole' : 'wrong';
  } catch {
    // Cut off: looked at below.
  }
  return same(received, body.subarray(first, first + received.byteLength)) ? 'broken' : 'wrong';
}

/** Processes that a role has started. */
function workersOf({ program }: Role): number[] {
  const { pid } = program.child;
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

function isAlive(pid: number): boolean {
  try {
    // A process that has ended and was not waited for is there by name only.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

function countDamage({ program }: Role): number {
  return /damaged/.test(program.stderr) ? 1 : 0;
}

async function main(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'peerdist-kill-'));
  const ends: (() => unknown)[] = [];
  const t = { teardown: (end: () => unknown) => void ends.push(end) } as unknown as Owner;
  const kills = Number(process.argv[2] ?? 200);
  const seed = Number(process.argv[3] ?? Date.now() % 1_000_000);
  console.log(`${kills} kills, seed ${seed}`);
  const report = await killMatrix(t, directory, kills, {
    seed,
    onKill: (so) => so.kills % 10 === 0 && console.log(JSON.stringify(so)),
  });
  console.log(JSON.stringify(report));
  for (const end of ends) await end();
  rmSync(directory, { recursive: true, force: true });
  process.exitCode = report.wrong + report.bad + report.damaged === 0 ? 0 : 1;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) await main();
