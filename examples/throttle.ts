/** A plug-in in a dozen lines: no answer is faster than so many bytes a second. */
import { Transform } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { definePlugin, type Plugin } from 'peerdist/kit';

export function throttle({ bytesPerSecond }: { readonly bytesPerSecond: number }): Plugin {
  return definePlugin({
    name: 'throttle',
    handle: async (request, next) =>
      (await next(request)).through(
        new Transform({
          transform: (chunk: Uint8Array, _encoding, done) =>
            void sleep((chunk.byteLength / bytesPerSecond) * 1000).then(() => done(null, chunk)),
        }),
      ),
  });
}
