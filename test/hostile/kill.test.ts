/** A short run of the kill matrix; the long one is `node dist/test/hostile/kill-matrix.js 200`. */
import t from 'tap';
import { killMatrix } from './kill-matrix.ts';

await t.test('killed at random moments: no wrong byte, no bad block, nothing lost but the moment', async (test) => {
  const report = await killMatrix(test, test.testdir({}), 6, { seed: 11 });
  test.equal(report.kills, 6);
  test.equal(report.wrong, 0, 'clients got no wrong byte');
  test.equal(report.bad, 0, 'nothing on disk is bad');
  test.equal(report.damaged, 0, 'no store was moved aside');
  test.ok(report.whole > 10, `${report.whole} downloads came to their end, ${report.broken} broke off`);
});
