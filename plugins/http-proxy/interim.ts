/** Interim answers (1xx): a proxy hands them on (RFC 9110 15.2). */
import { STATUS_CODES, type ServerResponse } from 'node:http';
import type { HeaderFields } from '../../lib/http/index.ts';
import type { InterimListener } from '../../lib/kit/index.ts';

/** Interim answers of one exchange that are handed on. Policy, not protocol. */
const MAX_INTERIM = 16;

/**
 * Writes interim answers to a client, as long as its final one has not begun. Who speaks HTTP/1.0 cannot read any, and who waits behind another
 * answer in a pipeline has no connection of its own yet.
 */
export function interimWriter(client: ServerResponse): InterimListener {
  let count = 0;
  return (status, headers) => {
    const { socket, req } = client;
    if (client.headersSent || socket === null || socket.destroyed || req.httpVersion === '1.0') return;
    count += 1;
    if (count > MAX_INTERIM) return;
    const lines = Object.entries(headers).flatMap(([name, value]) => linesOf(name, value));
    const head = [`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Unknown'}`, ...lines, '', ''].join('\r\n');
    socket.write(head, 'latin1');
  };
}

/** Nothing the origin sent can start a second head. */
function linesOf(name: string, value: HeaderFields[string]): string[] {
  const values = typeof value === 'string' ? [value] : (value ?? []);
  return values.filter((each) => !/[\r\n\0]/.test(each)).map((each) => `${name}: ${each}`);
}
