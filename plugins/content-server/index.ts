export { createContentServer } from './content-server.ts';
export type { ContentServerOptions, HashUnknownOptions } from './options.ts';
export { decodeResource as parsePublishedResource, type PublishedResource } from './resource.ts';
