/** The Peer Distribution API; README.md here has the table Win32 → TypeScript. */
export { type AddDataResult } from './added-data.ts';
export { type ClientInformation, ContentHandle, type ContentSegment } from './content-handle.ts';
export { ContentInformationReader } from './content-information-reader.ts';
export {
  READ_TIMEOUT_DEFAULT_MS,
  READ_TIMEOUT_LOCAL_CACHE_ONLY,
  type ReadOptions,
  type ReadResult,
} from './content-reads.ts';
export { ContentRecorder, type RecordOptions } from './content-recorder.ts';
export { type ContentReadStreamOptions, type MissingRangeHandler } from './content-streams.ts';
export { type ContentDescription } from './description.ts';
export { type Abortable } from './operations.ts';
export { peek } from './peek.ts';
export {
  type ApiVersion,
  CONTENT_TAG_BYTES,
  type ContentTag,
  type OpenContentOptions,
  PeerDist,
  type PeerDistClient,
  type PeerDistComponents,
  type PeerDistEvents,
  type PeerDistOptions,
} from './peerdist.ts';
export { type PublicationInfo, PublicationStream, PublishTransform } from './publication.ts';
export {
  type ContentId,
  type OpenContentInformationOptions,
  type PublisherIdentity,
  type PublishOptions,
} from './publish-options.ts';
export { PeerDistServer } from './publisher.ts';
export { type PeerDistStatus } from './session.ts';
export { type PeerDistStatusInfo } from './status.ts';
