export { createContentServer } from './content-server.ts';
export type { ContentServerOptions } from './options.ts';
