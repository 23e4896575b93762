export { Exchange, type ExchangeEnd, type ExchangeWatch, type ExchangeWatcher, type Outcome } from './exchange.ts';
export { HttpProxyHost, type TlsIdentity } from './host.ts';
export { type HostTimeouts, type HttpProxyHostOptions, parseOrigin, type ProxyServerLike } from './options.ts';
export { isLoopback, networkSet, plainAddress, PRIVATE_NETWORKS } from './access.ts';
export { createProxyServer } from './library.ts';
