/** The whole kit from one import. Sub-paths (`peerdist/kit`, `peerdist/pccrc`, …) bring single rooms. */
export * from './peerdist/index.ts';
export * from './bytes/index.ts';
export * from './crypto/index.ts';
export * from './protocol/pccrc/index.ts';
export * from './protocol/pccrtp/index.ts';
export * from './protocol/pccrr/index.ts';
export * from './protocol/pccrd/index.ts';
export * from './protocol/pchc/index.ts';
export * from './streams/index.ts';
export * from './stores/index.ts';
export * from './services/index.ts';
export * from './kit/index.ts';
export { type Clock, systemClock } from './clock.ts';
export {
  ERROR_CODES,
  isPeerDistError,
  PeerDistAbortError,
  PeerDistError,
  type PeerDistErrorCode,
  type PeerDistErrorDetails,
  PeerDistMissingDataError,
} from './errors.ts';
export { type BlockOrigin, ignoreObservations, type Observation, type Observer } from './observer.ts';
