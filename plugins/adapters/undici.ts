import type { Dispatcher } from 'undici';
import { AnswerController } from './answer-handler.ts';
import { CachedClient, type ReadingOptions } from './cached-client.ts';
import { toDispatchOptions, toProxyRequest } from './dispatch-request.ts';
import { askOrigin } from './origin-handler.ts';

export type { ReadingOptions } from './cached-client.ts';

/** An interceptor for `dispatcher.compose` that has to be closed. */
export interface CachingInterceptor extends AsyncDisposable {
  (dispatch: Dispatcher.Dispatch): Dispatcher.Dispatch;
  /** Ends it: from now on requests only pass. A PeerDist and sources that were given stay open, and so does the dispatcher. */
  close(): Promise<void>;
}

const SAFE_METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'CONNECT']);

/**
 * GET requests read through a cache of verified blocks; the dispatcher it is composed with is the origin. All other requests pass untouched.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
 */
export function peerdist(options?: ReadingOptions): CachingInterceptor {
  const client = new CachedClient(options);
  const intercept =
    (dispatch: Dispatcher.Dispatch): Dispatcher.Dispatch =>
    (request, handler) => {
      const { method, upgrade, body } = request;
      if (client.isClosed) return dispatch(request, handler);
      if (!SAFE_METHODS.has(method)) return dispatch(request, noticing(client, request, handler));
      const isRead = method === 'GET' && !upgrade && (body === undefined || body === null);
      return isRead ? read(client, dispatch, request, handler) : dispatch(request, handler);
    };
  const close = (): Promise<void> => client.close();
  return Object.assign(intercept, { close, [Symbol.asyncDispose]: close });
}

/** Starts an exchange through the cache; one whose address it cannot make out passes. */
function read(
  client: CachedClient,
  dispatch: Dispatcher.Dispatch,
  options: Dispatcher.DispatchOptions,
  handler: Dispatcher.DispatchHandler,
): boolean {
  const controller = new AnswerController(handler);
  const request = toProxyRequest(options, controller.signal);
  if (request === undefined) return dispatch(options, handler);
  controller.begin();
  if (controller.aborted) return true;
  client
    .exchange(request, (passed) => askOrigin(dispatch, toDispatchOptions(options, passed), passed))
    .then((response) => controller.give(response))
    .catch((error: unknown) => controller.fail(error as Error));
  return true;
}

/** The handler, with the cache told what an unsafe request has come to. */
function noticing(
  client: CachedClient,
  options: Dispatcher.DispatchOptions,
  handler: Dispatcher.DispatchHandler,
): Dispatcher.DispatchHandler {
  const request = toProxyRequest(options, new AbortController().signal);
  if (request === undefined) return handler;
  return {
    onRequestStart: (controller, context) => handler.onRequestStart?.(controller, context),
    onRequestUpgrade: (...args) => handler.onRequestUpgrade?.(...args),
    onResponseStart: (controller, status, headers, statusText) => {
      if (status >= 200) void client.notice(request, status).catch(() => {});
      handler.onResponseStart?.(controller, status, headers, statusText);
    },
    onResponseData: (controller, chunk) => handler.onResponseData?.(controller, chunk),
    onResponseEnd: (controller, trailers) => handler.onResponseEnd?.(controller, trailers),
    onResponseError: (controller, error) => handler.onResponseError?.(controller, error),
  };
}
