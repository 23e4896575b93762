import { Readable } from 'node:stream';
import { type Dispatcher, errors } from 'undici';
import { PeerDistError } from '../../lib/errors.ts';
import { endToEndFields } from '../../lib/http/index.ts';
import { type ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';

/** Bytes of a body that are held when nobody reads. Policy, not protocol: that of undici. */
const MAX_AHEAD_BYTES = 64 * 1024;

/** Puts a request to a dispatcher and resolves with the head of its answer, whose body holds the origin back when nobody reads it. */
export function askOrigin(
  dispatch: Dispatcher.Dispatch,
  options: Dispatcher.DispatchOptions,
  request: ProxyRequest,
): Promise<ProxyResponse> {
  return new Promise((resolve, reject) => {
    const handler = new OriginHandler(request.signal, resolve, reject);
    try {
      dispatch(options, handler);
    } catch (error) {
      handler.onResponseError(undefined, error as Error);
    }
  });
}

/** The other end of one request to the origin, until its answer is all there or nobody wants it. */
class OriginHandler implements Dispatcher.DispatchHandler {
  readonly #signal: AbortSignal;
  readonly #resolve: (response: ProxyResponse) => void;
  readonly #reject: (error: Error) => void;
  #controller: Dispatcher.DispatchController | undefined;
  #body: OriginBody | undefined;

  constructor(signal: AbortSignal, resolve: (response: ProxyResponse) => void, reject: (error: Error) => void) {
    this.#signal = signal;
    this.#resolve = resolve;
    this.#reject = reject;
    signal.addEventListener('abort', this.#leave, { once: true });
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#signal.aborted) this.#leave();
  }

  onRequestUpgrade(controller: Dispatcher.DispatchController): void {
    controller.abort(new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin switched protocols unasked'));
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: Readonly<Record<string, string | string[] | undefined>>,
    statusText?: string,
  ): void {
    if (status < 200) return;
    this.#body = new OriginBody(controller, () => this.#end());
    // A 204 or 304 ends at once. Its stream is read by nobody, so it must not wait for that.
    const hasBody = status !== 204 && status !== 205 && status !== 304;
    if (!hasBody) this.#body.resume();
    this.#resolve(
      new ProxyResponse({ status, statusText, headers: endToEndFields(headers), body: hasBody ? this.#body : null }),
    );
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#body?.push(chunk) === false) controller.pause();
  }

  onResponseEnd(): void {
    this.#body?.push(null);
    this.#end();
  }

  onResponseError(_controller: Dispatcher.DispatchController | undefined, error: Error): void {
    this.#end();
    if (this.#body === undefined) this.#reject(error);
    else this.#body.destroy(error);
  }

  readonly #leave = (): void => {
    this.#controller?.abort(this.#signal.reason as Error);
    // A request that waits for a connection has no controller yet, and nobody is going to wait for it.
    if (this.#controller === undefined) this.onResponseError(undefined, this.#signal.reason as Error);
  };

  #end(): void {
    this.#signal.removeEventListener('abort', this.#leave);
  }
}

class OriginBody extends Readable {
  readonly #controller: Dispatcher.DispatchController;
  readonly #onClose: () => void;

  constructor(controller: Dispatcher.DispatchController, onClose: () => void) {
    super({ highWaterMark: MAX_AHEAD_BYTES });
    this.#controller = controller;
    this.#onClose = onClose;
    // Whoever reads it sees the error; nobody has to.
    this.on('error', () => {});
  }

  override _read(): void {
    this.#controller.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#onClose();
    if (!this.readableEnded && !this.#controller.aborted)
      this.#controller.abort(error ?? new errors.RequestAbortedError());
    callback(error);
  }
}
