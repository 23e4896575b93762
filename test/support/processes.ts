/** Other processes, as Linux tells of them. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Processes that this one has started. */
export function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

export function isAlive(pid: number): boolean {
  try {
    // A process that has ended and was not waited for is there by name only.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Processes with this in their command line. */
export function processesWith(text: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(text) && isAlive(pid);
      } catch {
        return false;
      }
    });
}

/** When a process began, as its owner file has it. */
export function startOf(pid: number): string {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] as string;
}

/** Sockets that a process has open. */
export function socketsOf(pid: number): number {
  return socketInodes(pid).size;
}

/** A port that a process listens on by IPv4; undefined while it does not. */
export function portOf(pid: number): number | undefined {
  const own = socketInodes(pid);
  const rows = readFileSync('/proc/net/tcp', 'latin1')
    .split('\n')
    .map((row) => row.trim().split(/\s+/));
  const [, local] = rows.find(([, , , state, , , , , , inode = '']) => state === '0A' && own.has(inode)) ?? [];
  return local === undefined ? undefined : Number.parseInt(local.split(':')[1] as string, 16);
}

function socketInodes(pid: number): ReadonlySet<string> {
  const inodes = new Set<string>();
  for (const descriptor of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const [, inode] = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${descriptor}`)) ?? [];
      if (inode !== undefined) inodes.add(inode);
    } catch {
      // It is closed again.
    }
  }
  return inodes;
}
