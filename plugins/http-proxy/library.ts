import httpProxy from 'http-proxy';
import type { ProxyServerLike } from './options.ts';

/** The proxy library this package ships with. Any other that fits {@link ProxyServerLike} may be passed to the host instead. */
export function createProxyServer(): ProxyServerLike {
  // Its types ask for a real request and response; the host hands it stand-ins (outgoing.ts).
  const server: unknown = httpProxy.createProxyServer();
  return server as ProxyServerLike;
}
