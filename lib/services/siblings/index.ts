export type { SiblingEntry, SiblingQuestion } from './messages.ts';
export { MAX_SIBLINGS, SiblingDirectory, type SiblingDirectoryOptions } from './sibling-directory.ts';
export { type SiblingLookup } from './sibling-server.ts';
export { siteBeacon } from './site.ts';
