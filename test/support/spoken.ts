/** What `peerdist` says, whether it prints it or puts it into its log, as a person reads it. */
import { runCommand } from '../../plugins/standalone/cli.ts';
import type { Finished } from './proxies.ts';

/** One line of the log that is about a request. */
export type LoggedRequest = Readonly<Record<string, unknown>>;

/** Takes lines as they come and sorts them: notices, warnings, requests. */
export class Spoken {
  stdout = '';
  stderr = '';
  readonly requests: LoggedRequest[] = [];
  /** Every line of the log, as it came. */
  readonly log: LoggedRequest[] = [];
  #rest = '';

  /** More of what the program wrote to its standard output. */
  take(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#sort(line);
  }

  end(): void {
    if (this.#rest !== '') this.stdout += this.#rest;
    this.#rest = '';
  }

  #sort(line: string): void {
    const logged = parseLogged(line);
    if (logged === undefined) {
      this.stdout += `${line}\n`;
      return;
    }
    this.log.push(logged);
    if (logged['msg'] === 'request') this.requests.push(logged);
    else if (logged['level'] === 'info') this.stdout += `${String(logged['msg'])}\n`;
    else this.stderr += `${String(logged['msg'])}\n`;
  }
}

function parseLogged(line: string): LoggedRequest | undefined {
  if (!line.startsWith('{"level":')) return undefined;
  return JSON.parse(line) as LoggedRequest;
}

/** Runs `peerdist` in this process, which is much quicker than in one of its own; a role that starts is stopped at once. */
export async function runInside(
  args: readonly string[],
  {
    stopRequested = Promise.resolve(),
    environment = process.env,
  }: { readonly stopRequested?: Promise<void>; readonly environment?: NodeJS.ProcessEnv } = {},
): Promise<Finished> {
  const spoken = new Spoken();
  let stderr = '';
  const code = await runCommand(
    args,
    {
      print: (line) => spoken.take(`${line}\n`),
      warn: (line) => {
        stderr += `${line}\n`;
      },
      openLog: () => ({ stream: { write: (line) => spoken.take(line) }, isTerminal: false, flush: async () => {} }),
      stopRequested,
      onReload: () => {},
    },
    environment,
  );
  return { code, stdout: spoken.stdout, stderr: spoken.stderr + stderr };
}
