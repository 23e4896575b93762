export { Kit, type KitOptions } from './kit.ts';
export { definePlugin, type Next, type Plugin } from './plugin.ts';
export {
  type ClientInfo,
  type InterimListener,
  ProxyRequest,
  type ProxyRequestParts,
  type RequestWatcher,
} from './request.ts';
export { type ProxyBody, ProxyResponse, type ProxyResponseParts } from './response.ts';
