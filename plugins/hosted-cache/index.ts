export { basicAuthentication } from './authentication.ts';
export { keptCertificate, type KeptCertificate } from './certificate.ts';
export { packageHead, type PackagedBlock, readPackage } from './content-package.ts';
export { fetchContentInformation, type Progress, writePackage } from './describe-url.ts';
export { HostedCacheService, type HostedCacheServiceOptions } from './hosted-cache.ts';
export { type Agreement, verifyUrl } from './verify-url.ts';
