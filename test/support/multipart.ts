import type { Answer } from './proxies.ts';

export interface Part {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** Takes a multipart/byteranges body apart by the rules of RFC 2046, strictly. */
export function parts({ headers, body }: Answer): Part[] {
  const boundary = /^multipart\/byteranges; *boundary="?([^";]+)"?$/.exec(headers['content-type'] ?? '')?.[1];
  if (boundary === undefined) throw new Error(`no boundary in ${headers['content-type']}`);
  const found: Part[] = [];
  let at = body.indexOf(`--${boundary}\r\n`);
  // BITS takes at most two CRLFs before the first boundary.
  if (at < 0 || at > 4) throw new Error('no first boundary where it should be');
  for (;;) {
    at += boundary.length + 4;
    const headEnd = body.indexOf('\r\n\r\n', at);
    const next = body.indexOf(`\r\n--${boundary}`, headEnd);
    if (headEnd < 0 || next < 0) throw new Error('a part without an end');
    const lines = body.subarray(at, headEnd).toString('latin1').split('\r\n');
    found.push({
      headers: Object.fromEntries(lines.map((line) => [line.split(': ')[0]?.toLowerCase(), line.split(': ')[1]])),
      body: body.subarray(headEnd + 4, next),
    });
    at = next + 2;
    if (body.subarray(at).toString('latin1') === `--${boundary}--\r\n`) return found;
    if (body.subarray(at).toString('latin1', 0, boundary.length + 4) !== `--${boundary}\r\n`)
      throw new Error('something between parts');
  }
}
