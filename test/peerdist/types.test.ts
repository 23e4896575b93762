/**
 * What must not compile. tsc is what makes these tests fail: an `@ts-expect-error` without an error is one. Functions that take handles are
 * there for the compiler and are not called.
 */
import t from 'tap';
import {
  type ClientInformation,
  type ContentHandle,
  type ContentReadStreamOptions,
  type ContentSegment,
  type OpenContentInformationOptions,
  PeerDist,
  type PeerDistOptions,
  type PeerDistServer,
  type PeerDistStatus,
  type PublishOptions,
  peek,
  type ReadOptions,
  type ReadResult,
} from '../../lib/peerdist/index.ts';

const DATA: ReadResult = { kind: 'data', offset: 5, data: new Uint8Array(3) };
const HOLE: ReadResult = { kind: 'missing', reason: 'timeout', missing: { offset: 5, length: 3 } };
const END: ReadResult = { kind: 'end', offset: 8 };

/** Fails to compile when a case is forgotten or a fourth kind appears. */
function told(result: ReadResult): string {
  switch (result.kind) {
    case 'data':
      return `${result.data.byteLength} bytes at ${result.offset}`;
    case 'missing':
      return `${result.reason}: ${result.missing.length} bytes at ${result.missing.offset}`;
    case 'end':
      return `end at ${result.offset}`;
    default:
      return result satisfies never;
  }
}

function toldInPart(result: ReadResult): string {
  switch (result.kind) {
    case 'data':
    case 'end':
      return 'no hole';
    default:
      // @ts-expect-error 'missing' is left over
      return result satisfies never;
  }
}

t.test('a read result is a union, told apart by kind', (t) => {
  t.equal(told(DATA), '3 bytes at 5');
  t.equal(told(HOLE), 'timeout: 3 bytes at 5');
  t.equal(told(END), 'end at 8');
  t.equal(toldInPart(END), 'no hole');
  const wrongArms = (result: ReadResult): void => {
    // @ts-expect-error not before kind is known
    void result.data;
    // @ts-expect-error not before kind is known
    void result.missing;
    // @ts-expect-error a hole has no offset of its own
    void result.offset;
    if (result.kind === 'data') {
      // @ts-expect-error data is no hole
      void result.missing;
      // @ts-expect-error data has no reason
      void result.reason;
    } else if (result.kind === 'missing') {
      // @ts-expect-error a hole has no data
      void result.data;
      // @ts-expect-error a third reason
      void (result.reason === 'gone');
      // @ts-expect-error ranges are not written to
      result.missing.offset = 0;
    } else {
      // @ts-expect-error the end has no data
      void result.data;
    }
    // @ts-expect-error a fourth kind
    void (result.kind === 'error');
  };
  const walked = (segment: ContentSegment): void => {
    // @ts-expect-error a walk never yields the end
    void (segment.kind === 'end');
  };
  // @ts-expect-error a hole needs its reason
  const incomplete: ReadResult = { kind: 'missing', missing: { offset: 0, length: 1 } };
  t.type(wrongArms, 'function');
  t.type(walked, 'function');
  t.equal(incomplete.kind, 'missing');
  t.end();
});

t.test('the other unions and closed lists', async (t) => {
  const state = await peek(Promise.resolve(7));
  if (state.state === 'fulfilled') t.equal(state.value satisfies number, 7);
  const wrongArms = (): void => {
    // @ts-expect-error a value only when fulfilled
    void state.value;
    // @ts-expect-error a reason only when rejected
    if (state.state === 'pending') void state.reason;
  };
  const lists = (handle: ContentHandle, pd: PeerDist, status: PeerDistStatus): void => {
    // @ts-expect-error no such class of information
    handle.getInformation('advanced');
    // @ts-expect-error a boolean
    handle.getInformation('basic').flashCrowd satisfies string;
    // @ts-expect-error no such phase
    void (handle.phase === 'open');
    // @ts-expect-error undefined until complete
    void handle.description.range;
    // @ts-expect-error no such status
    void (status === 'enabled');
    // @ts-expect-error no such status
    pd.setStatus('on');
    // @ts-expect-error no such event
    pd.on('statsu', () => {});
    // @ts-expect-error the first argument is the status itself
    pd.on('status', (info) => info.status);
    pd.on('status', (_status, info) => void (info.status satisfies PeerDistStatus));
  };
  const information: ClientInformation['basic'] = { flashCrowd: false };
  t.type(wrongArms, 'function');
  t.type(lists, 'function');
  t.equal(information.flashCrowd, false);
});

t.test('misspelt options', (t) => {
  // @ts-expect-error maxBytes
  const reading: ReadOptions = { maxBites: 1 };
  // @ts-expect-error timeoutMs
  const waiting: ReadOptions = { timeout: 1 };
  // @ts-expect-error onMissing
  const streaming: ContentReadStreamOptions = { onMising: () => Promise.resolve(new Uint8Array(1)) };
  // @ts-expect-error bytes, not text
  const filling: ContentReadStreamOptions = { onMissing: () => Promise.resolve('text') };
  // @ts-expect-error length
  const publishing: PublishOptions = { lenght: 1 };
  // @ts-expect-error a number of bytes
  const sizing: PublishOptions = { maxBytes: '1MiB' };
  // @ts-expect-error versions
  const describing: OpenContentInformationOptions = { version: { min: 1, max: 2 } };
  // @ts-expect-error a range is offset and length
  const part: OpenContentInformationOptions = { range: { start: 0, end: 1 } };
  // @ts-expect-error identity
  const opening: PeerDistOptions = { identify: 'me' };
  // @ts-expect-error blockStore
  const composing: PeerDistOptions = { components: { blockstore: undefined } };
  // @ts-expect-error a ServerSecret, which does not print
  const secret: PeerDistOptions = { serverSecret: 'text' };
  const calls = (pd: PeerDist, handle: ContentHandle): void => {
    // @ts-expect-error drain
    void pd.close({ drian: true });
    // @ts-expect-error signal
    void pd.nextStatus({ sginal: AbortSignal.abort() });
    // @ts-expect-error a signal, not its controller
    void handle.read({ signal: new AbortController() });
    // @ts-expect-error no time-out where nothing is asked
    void handle.availableAt(0, { timeoutMs: 1 });
    // @ts-expect-error bytes, not text
    void handle.addData(0, 'text');
    // @ts-expect-error bytes, not text
    void handle.addContentInformation('text');
  };
  const all = [reading, waiting, streaming, filling, publishing, sizing, describing, part, opening, composing, secret];
  t.equal(all.length, 11);
  t.type(calls, 'function');
  t.end();
});

t.test('a content tag is bytes', async (t) => {
  await using pd = await PeerDist.open();
  const wrong = { code: 'ERR_PEERDIST_INVALID_PARAMETER' };
  // @ts-expect-error text, though it has 16 characters
  await t.rejects(pd.client.openContent('0123456789abcdef'), wrong);
  // @ts-expect-error numbers, though there are 16
  await t.rejects(pd.client.openContent(Array.from({ length: 16 }, () => 0)), wrong);
  // @ts-expect-error text
  await t.rejects(pd.client.flush('0123456789abcdef'), wrong);
  // @ts-expect-error words of 32 bits
  await t.rejects(pd.client.flush(new Uint32Array(4)), wrong);
  // @ts-expect-error a tag must be given
  await t.rejects(pd.client.openContent(), wrong);
  const identifiers = (server: PeerDistServer): void => {
    void server.publish('text');
    void server.publish(new Uint8Array(2));
    // @ts-expect-error a number is no content identifier
    void server.publish(7);
    // @ts-expect-error an array is no content identifier
    void server.unpublish([7]);
  };
  t.type(identifiers, 'function');
});

t.test('wrong version numbers', async (t) => {
  await using pd = await PeerDist.open();
  const wrong = { code: 'ERR_PEERDIST_INVALID_PARAMETER' };
  // @ts-expect-error 1 or 2
  await t.rejects(pd.server.publish('a', { version: 3 }), wrong);
  // @ts-expect-error reserved
  await t.rejects(pd.server.publish('a', { flags: 1 }), wrong);
  // @ts-expect-error 1 or 2
  await t.rejects(pd.server.getContentInformation('a', { versions: { min: 0, max: 2 } }), wrong);
  // @ts-expect-error 1 or 2
  await t.rejects(pd.server.openContentInformation('a', { versions: { min: 1, max: 3 } }), wrong);
  // @ts-expect-error both ends of the span
  const half: OpenContentInformationOptions = { versions: { min: 1 } };
  // @ts-expect-error major and minor
  await t.rejects(PeerDist.open({ minimumVersion: 1 }), wrong);
  // @ts-expect-error numbers
  await t.rejects(PeerDist.open({ minimumVersion: { major: '1', minor: '0' } }), wrong);
  // @ts-expect-error a third format
  void (pd.getStatusInfo().maxContentInfoVersion === 3);
  t.ok(half);
});
