import httpProxy from 'http-proxy';
import type { ProxyServerLike } from './options.ts';

/** The proxy library this package ships with. Any other that fits {@link ProxyServerLike} may be passed to the host instead. */
export function createProxyServer(): ProxyServerLike {
  return httpProxy.createProxyServer() as unknown as ProxyServerLike;
}
