import type { FastifyPluginAsync } from 'fastify';
import { PublishedApplication } from './published-application.ts';
import type { PublishingOptions } from './publishing-options.ts';

export type { PublishingOptions } from './publishing-options.ts';

/**
 * Fastify plugin for the instance it is registered in and all that is in it: what its routes answer is hashed on its way where it has a strong
 * validator, and clients that can use content information get it. Ends with the instance.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`, as a rejection of `ready` and `listen`
 */
export const peerdist: FastifyPluginAsync<PublishingOptions> = Object.assign(
  (async (instance, options) => {
    const application = new PublishedApplication(options);
    // Before parsing and handlers, on the raw response: whatever Fastify is going to write to it, streams and errors included, is an answer.
    instance.addHook('onRequest', (request, reply, next) => {
      const rerun = (): void => instance.routing(request.raw, reply.raw);
      application.handle(request.raw, reply.raw, { run: () => next(), rerun });
    });
    instance.addHook('onClose', () => application.close());
  }) satisfies FastifyPluginAsync<PublishingOptions>,
  {
    // Without these its hooks would be for its own routes, and it has none.
    [Symbol.for('skip-override')]: true,
    [Symbol.for('fastify.display-name')]: 'peerdist',
    [Symbol.for('plugin-meta')]: { name: 'peerdist', fastify: '5.x' },
  },
);
