/** Reverse proxy with hashing against the same host without, 256 MB body, origin nginx, client curl; and ten pass-through plug-ins. */
import { MiB, paired, seededBytes } from './measure.ts';
import { curl, type Running, scratchFile, startNginx, startServer } from './processes.ts';
import { gigabytes, type Line } from './report.ts';

export async function benchReverse(): Promise<Line[]> {
  scratchFile('256m.bin', seededBytes(256 * MiB));
  const nginx = await startNginx();
  const plain = await startServer('host', nginx.url);
  const lines: Line[] = [];
  const compare = async (what: string, goal: number | undefined, subject: Running): Promise<void> => {
    const { value, yardstick, ratio } = await paired(
      () => curl(`${subject.url}/256m.bin`),
      () => curl(`${plain.url}/256m.bin`),
    );
    lines.push({
      what,
      value: gigabytes(value),
      yardstick: gigabytes(yardstick),
      ratio,
      ...(goal === undefined ? {} : { goal }),
    });
    await subject.stop();
  };
  for (const threads of ['0', '1', '2']) {
    const where = { 0: 'main thread', 1: 'one worker', 2: 'two workers' }[threads];
    // The goals are for the main thread; the others show which default is better.
    const goal = (figure: number): number | undefined => (threads === '0' ? figure : undefined);
    await compare(`hashing v1, ${where}`, goal(0.6), await startServer('hash', nginx.url, '1', threads));
    await compare(`hashing v2, ${where}`, goal(0.4), await startServer('hash', nginx.url, '2', threads));
    await compare(`hashing both, ${where}`, goal(0.33), await startServer('hash', nginx.url, '12', threads));
  }
  await compare('ten pass-through plug-ins', 0.9, await startServer('host', nginx.url, '10'));
  await plain.stop();
  await nginx.stop();
  return lines;
}
