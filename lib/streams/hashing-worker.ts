/** The thread behind {@link ThreadedHashing}: one accumulator for each body, chunks in, encoded content information out. */
import { parentPort } from 'node:worker_threads';
import { hashProvider } from '../crypto/index.ts';
import { encodeContentInformation, ServerSecret } from '../protocol/pccrc/index.ts';
import type { HashingMessage } from './hashing-threads.ts';
import { type SegmentAccumulator, V1Accumulator, V2Accumulator } from './segment-accumulator.ts';

const accumulators = new Map<number, SegmentAccumulator>();

parentPort?.on('message', (message: HashingMessage) => {
  const { body } = message;
  switch (message.type) {
    case 'begin': {
      const provider = hashProvider(message.provider);
      const secret = new ServerSecret(message.secretKey);
      accumulators.set(
        body,
        message.version === 1
          ? new V1Accumulator(provider, secret, message.algorithm)
          : new V2Accumulator(provider, secret),
      );
      break;
    }
    case 'bytes':
      accumulators.get(body)?.push(new Uint8Array(message.slab, 0, message.length));
      parentPort?.postMessage({ type: 'taken', body });
      break;
    case 'finish': {
      const information = accumulators.get(body)?.finish();
      accumulators.delete(body);
      parentPort?.postMessage({
        type: 'finished',
        body,
        encoded: information && encodeContentInformation(information),
      });
      break;
    }
    case 'abort':
      accumulators.delete(body);
      break;
  }
});
