/** The one error type: what programs can rely on. */
import t from 'tap';
import {
  ERROR_CODES,
  isPeerDistError,
  PeerDistAbortError,
  PeerDistError,
  type PeerDistErrorCode,
  PeerDistMissingDataError,
} from '../lib/errors.ts';

await t.test('codes and their Win32 numbers', async (test) => {
  const numbers: Partial<Record<PeerDistErrorCode, number>> = {
    ERR_PEERDIST_INVALID_PARAMETER: 87,
    ERR_PEERDIST_INVALID_HANDLE: 6,
    ERR_PEERDIST_ALREADY_EXISTS: 4058,
    ERR_PEERDIST_NOT_FOUND: 1168,
    ERR_PEERDIST_OPERATION_ABORTED: 995,
    ERR_PEERDIST_MISSING_DATA: 4052,
    ERR_PEERDIST_TIMEOUT: 1460,
    ERR_PEERDIST_NO_MORE: 4053,
    ERR_PEERDIST_OUT_OF_BOUNDS: 4061,
    ERR_PEERDIST_CONTENTINFO_VERSION_UNSUPPORTED: 4050,
    ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO: 4051,
    ERR_PEERDIST_NOT_INITIALIZED: 4054,
    ERR_PEERDIST_ALREADY_COMPLETED: 4060,
  };
  for (const [code, { win32, meaning }] of Object.entries(ERROR_CODES)) {
    const error = new PeerDistError(code as PeerDistErrorCode, 'text');
    test.equal(error.win32Code, numbers[code as PeerDistErrorCode], code);
    test.equal(win32, numbers[code as PeerDistErrorCode] ?? 0);
    test.match(code, /^ERR_PEERDIST_[A-Z_]+$/);
    test.ok(meaning.length > 5);
  }
  const given = Object.values(ERROR_CODES).flatMap(({ win32 }) => (win32 === 0 ? [] : [win32]));
  test.equal(new Set(given).size, given.length, 'no number twice');
});

await t.test('errors', async (test) => {
  const cause = new Error('below');
  const error = new PeerDistError('ERR_PEERDIST_LIMIT', 'too much', {
    cause,
    spec: 'MS-PCCRC 2.3',
    expected: 1,
    actual: 2,
    operation: 'ContentHandle.addData',
  });
  test.ok(error instanceof Error);
  test.match(error, {
    name: 'PeerDistError',
    message: 'too much',
    code: 'ERR_PEERDIST_LIMIT',
    spec: 'MS-PCCRC 2.3',
    expected: 1,
    actual: 2,
    operation: 'ContentHandle.addData',
  });
  test.equal(error.cause, cause);
  const bare = new PeerDistError('ERR_PEERDIST_LIMIT', 'too much');
  test.same([bare.cause, bare.spec, bare.expected, bare.actual, bare.operation], Array(5).fill(undefined));

  const missing = new PeerDistMissingDataError({ offset: 5, length: 10 }, { cause });
  test.match(missing, { code: 'ERR_PEERDIST_MISSING_DATA', name: 'PeerDistError', missing: { offset: 5, length: 10 } });
  test.equal(missing.cause, cause);

  const aborted = new PeerDistAbortError('signal', 'why');
  test.match(aborted, { name: 'AbortError', code: 'ERR_PEERDIST_OPERATION_ABORTED', trigger: 'signal', cause: 'why' });
  test.ok(String(aborted).startsWith('AbortError'));
  test.equal('cause' in new PeerDistAbortError('close'), false);
});

await t.test('isPeerDistError', async (test) => {
  const missing = new PeerDistMissingDataError({ offset: 0, length: 1 });
  test.ok(isPeerDistError(missing));
  test.ok(isPeerDistError(missing, 'ERR_PEERDIST_MISSING_DATA'));
  test.notOk(isPeerDistError(missing, 'ERR_PEERDIST_TIMEOUT'));
  test.ok(isPeerDistError(new PeerDistAbortError('close'), 'ERR_PEERDIST_OPERATION_ABORTED'));
  for (const value of [undefined, null, 'ERR_PEERDIST_TIMEOUT', new Error('x'), { code: 'ERR_PEERDIST_TIMEOUT' }]) {
    test.notOk(isPeerDistError(value));
  }
});
