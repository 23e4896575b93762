export {
  CONTENT_TAG_BYTES,
  type ContentTag,
  PeerDist,
  type PeerDistClient,
  type PeerDistComponents,
  type PeerDistOptions,
} from './peerdist.ts';
export {
  type AddDataResult,
  type ContentDescription,
  ContentHandle,
  type ContentReadStreamOptions,
  type MissingRangeHandler,
} from './content-handle.ts';
export {
  type ContentId,
  type OpenContentInformationOptions,
  PeerDistServer,
  type PublicationInfo,
  type PublisherIdentity,
  type PublishOptions,
  PublishTransform,
} from './publisher.ts';
export { ContentInformationReader } from './content-information-reader.ts';
