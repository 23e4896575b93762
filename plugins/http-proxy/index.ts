export { Exchange, type ExchangeEnd, type ExchangeWatch, type ExchangeWatcher, type Outcome } from './exchange.ts';
export { HttpProxyHost } from './host.ts';
export { renewIdentity, type TlsIdentity } from './listener.ts';
export { Upstream, type UpstreamOptions } from './upstream.ts';
export { type HostTimeouts, type HttpProxyHostOptions, parseOrigin, type ProxyServerLike } from './options.ts';
export { type InterceptIdentity, type Interceptor } from './intercept.ts';
export { LeafCertificates, type LeafCertificatesOptions, parseHostPattern } from './leaf-certificates.ts';
export { isLoopback, networkSet, plainAddress, PRIVATE_NETWORKS } from './access.ts';
export { createProxyServer } from './library.ts';
