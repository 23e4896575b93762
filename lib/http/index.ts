export { addToList, fieldValue, type HeaderFields, listMembers, removeFromList, withoutFields } from './fields.ts';
export { acceptsCoding, addPeerDist, removePeerDist } from './content-coding.ts';
export {
  formatContentRange,
  formatRange,
  formatSpec,
  MAX_RANGES,
  parseContentRange,
  parseRange,
  type RangeSpec,
  resolveRanges,
} from './range-header.ts';
export {
  canName,
  CONDITION_FIELDS,
  hasConditions,
  ifRangeHolds,
  ifRangeValue,
  isNotModified,
  isPersonal,
  isStrongTag,
  sameBytes,
  type Validators,
  validatorsOf,
} from './validators.ts';
export { endToEndFields } from './hop-by-hop.ts';
export { type CacheDirectives, parseCacheControl } from './cache-control.ts';
export { type CacheStatusReport, nearestCacheStatus } from './cache-status.ts';
export { selectingValues, varyNames } from './vary.ts';
