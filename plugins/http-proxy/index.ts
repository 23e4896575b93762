export { HttpProxyHost, type TlsIdentity } from './host.ts';
export type { HostTimeouts, HttpProxyHostOptions, ProxyServerLike } from './options.ts';
export { isLoopback, networkSet } from './access.ts';
export { createProxyServer } from './library.ts';
