import type { Service } from './service.ts';
import { formatListen } from './units.ts';

/** How a command talks to its surroundings. */
export interface Terminal {
  readonly print: (line: string) => void;
  readonly warn: (line: string) => void;
  /** Resolves when the process is asked to end. */
  readonly stopRequested: Promise<void>;
}

/**
 * Says where a role listens, and runs it until the process is asked to end.
 *
 * @returns why it could not go on, if so
 */
export async function runService(service: Service, { print, stopRequested }: Terminal): Promise<string | undefined> {
  for (const { role, scheme, address } of service.listeners)
    print(`listening on ${scheme}://${formatListen(address)}${role === 'clients' ? '' : ` (${role})`}`);
  const failure = await Promise.race([
    stopRequested.then(() => undefined),
    ...(service.failed ? [service.failed] : []),
  ]);
  await service.stop();
  return failure;
}
