/**
 * An application as the origin of a kit with the content server in it: what it answers is hashed on its way to the client, and the next client
 * that can use content information gets that, if the application agrees. The room behind `connect`, `fastify` and `http-proxy`.
 */
import { Exchange } from '../http-proxy/index.ts';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { systemClock } from '../../lib/clock.ts';
import { Kit } from '../../lib/kit/index.ts';
import { ignoreObservations } from '../../lib/observer.ts';
import { PeerDist } from '../../lib/peerdist/index.ts';
import { createContentServer } from '../content-server/index.ts';
import { ApplicationRequest, isReadOnly } from './application-request.ts';
import { type ApplicationCalls, ApplicationRun } from './application-run.ts';
import { CapturedResponse } from './captured-response.ts';
import { Departure } from './departure.ts';
import { assertPublishingOptions, type PublishingOptions } from './publishing-options.ts';
import { sendAnswer } from './send-answer.ts';

/** Responses that are looked after already: the second of two adapters in one application has nothing to do. */
const captured = new WeakSet<ServerResponse>();

export class PublishedApplication {
  readonly #options: PublishingOptions;
  readonly #kit: Promise<Kit>;
  #peerdist: PeerDist | undefined;
  #isClosed = false;

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
  constructor(options: PublishingOptions = {}) {
    assertPublishingOptions(options);
    this.#options = options;
    this.#kit = this.#open();
    // Whoever asks sees it; until then it is nobody's.
    this.#kit.catch(() => {});
  }

  /** Runs one exchange. Requests that can be no matter of ours go straight to the application. Throws what that throws. */
  handle(message: IncomingMessage, client: ServerResponse, calls: ApplicationCalls): void {
    if (this.#isClosed || captured.has(client) || !isReadOnly(message)) return calls.run();
    captured.add(client);
    const capture = new CapturedResponse(client);
    const { observer = ignoreObservations } = this.#options;
    const exchange = new Exchange(message, { observer, clock: systemClock, watch: undefined });
    const departure = new Departure(message, client, () => exchange.end(client.statusCode, client.writableFinished));
    const request = new ApplicationRequest(message, () => departure.signal);
    const run = new ApplicationRun({ client, capture, request, departure, calls });
    // Whatever ends an exchange early has broken the connection; nobody else has to hear of it.
    void this.#exchange(run).catch(() => capture.native.destroy());
  }

  /** Ends it: from now on everything goes straight to the application. A PeerDist that was given stays open. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const kit = await this.#kit.catch(() => undefined);
    await kit?.stop();
    if (this.#options.peerdist === undefined) await this.#peerdist?.close();
  }

  async #exchange(run: ApplicationRun): Promise<void> {
    const { request, capture } = run;
    try {
      const kit = await this.#kit;
      const answer = await kit.through((passed) => run.answer(passed))(request.proxied);
      request.restore();
      await sendAnswer(answer, run);
    } catch (error) {
      // Whatever went wrong here, the application's answer is still to be had, unless its client is gone or has begun to get one.
      if (run.departure.reason !== undefined || run.hasAnswered) throw error;
      request.restore();
      run.start();
      await run.departure.before(capture.head());
      capture.pass();
    }
  }

  async #open(): Promise<Kit> {
    const { observer, contentInformationStore, serverSecret, minBytes, maxBytes, records } = this.#options;
    const peerdist =
      this.#options.peerdist ??
      (await PeerDist.open({ serverSecret, components: { contentInformationStore, observer } }));
    this.#peerdist = peerdist;
    const plugins = [createContentServer({ peerdist, minBytes, maxBytes, records, observer })];
    const kit = new Kit({ plugins, observer });
    await kit.start();
    return kit;
  }
}
