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
  /** Section 6 of the specification. Windows lists no number for NOT_FOUND; 1168 is that of ERROR_NOT_FOUND. */
  const known: Partial<Record<PeerDistErrorCode, readonly [number, string]>> = {
    ERR_PEERDIST_INVALID_PARAMETER: [87, 'ERROR_INVALID_PARAMETER'],
    ERR_PEERDIST_INVALID_HANDLE: [6, 'ERROR_INVALID_HANDLE'],
    ERR_PEERDIST_DISABLED_BY_POLICY: [1260, 'ERROR_ACCESS_DISABLED_BY_POLICY'],
    ERR_PEERDIST_SERVICE_UNAVAILABLE: [4065, 'PEERDIST_ERROR_SERVICE_UNAVAILABLE'],
    ERR_PEERDIST_VERSION_UNSUPPORTED: [4062, 'PEERDIST_ERROR_VERSION_UNSUPPORTED'],
    ERR_PEERDIST_ALREADY_EXISTS: [4058, 'PEERDIST_ERROR_ALREADY_EXISTS'],
    ERR_PEERDIST_NOT_FOUND: [1168, 'PEERDIST_ERROR_NOT_FOUND'],
    ERR_PEERDIST_OPERATION_NOT_FOUND: [4059, 'PEERDIST_ERROR_OPERATION_NOTFOUND'],
    ERR_PEERDIST_OPERATION_ABORTED: [995, 'ERROR_OPERATION_ABORTED'],
    ERR_PEERDIST_INVALIDATED: [4057, 'PEERDIST_ERROR_INVALIDATED'],
    ERR_PEERDIST_MISSING_DATA: [4052, 'PEERDIST_ERROR_MISSING_DATA'],
    ERR_PEERDIST_TIMEOUT: [1460, 'ERROR_TIMEOUT'],
    ERR_PEERDIST_NO_MORE: [4053, 'PEERDIST_ERROR_NO_MORE'],
    ERR_PEERDIST_OUT_OF_BOUNDS: [4061, 'PEERDIST_ERROR_OUT_OF_BOUNDS'],
    ERR_PEERDIST_CONTENTINFO_VERSION_UNSUPPORTED: [4050, 'PEERDIST_ERROR_CONTENTINFO_VERSION_UNSUPPORTED'],
    ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO: [4051, 'PEERDIST_ERROR_CANNOT_PARSE_CONTENTINFO'],
    ERR_PEERDIST_NOT_INITIALIZED: [4054, 'PEERDIST_ERROR_NOT_INITIALIZED'],
    ERR_PEERDIST_ALREADY_INITIALIZED: [4055, 'PEERDIST_ERROR_ALREADY_INITIALIZED'],
    ERR_PEERDIST_SHUTDOWN_IN_PROGRESS: [4056, 'PEERDIST_ERROR_SHUTDOWN_IN_PROGRESS'],
    ERR_PEERDIST_ALREADY_COMPLETED: [4060, 'PEERDIST_ERROR_ALREADY_COMPLETED'],
    ERR_PEERDIST_INVALID_CONFIGURATION: [4063, 'PEERDIST_ERROR_INVALID_CONFIGURATION'],
    ERR_PEERDIST_NOT_LICENSED: [4064, 'PEERDIST_ERROR_NOT_LICENSED'],
    ERR_PEERDIST_TRUST_FAILURE: [4066, 'PEERDIST_ERROR_TRUST_FAILURE'],
  };
  for (const [code, { win32, meaning }] of Object.entries(ERROR_CODES)) {
    const error = new PeerDistError(code as PeerDistErrorCode, 'text');
    const [number, name] = known[code as PeerDistErrorCode] ?? [undefined, undefined];
    test.equal(error.win32Code, number, code);
    test.equal(win32, number ?? 0);
    test.equal(error.win32Name, name, `${code} in Windows`);
    test.match(code, /^ERR_PEERDIST_[A-Z_]+$/);
    test.ok(meaning.length > 5);
  }
  for (const code of Object.keys(known)) test.ok(code in ERROR_CODES, code);
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
  const late = new PeerDistMissingDataError(
    { offset: 5, length: 10 },
    { cause: new PeerDistError('ERR_PEERDIST_TIMEOUT', 'a peer took too long') },
  );
  test.match(late, { code: 'ERR_PEERDIST_TIMEOUT', win32Code: 1460, missing: { offset: 5, length: 10 } });

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
