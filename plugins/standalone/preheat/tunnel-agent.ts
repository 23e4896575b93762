/** Connections for https through a proxy that reads it: a CONNECT each, and TLS with the certificate that the proxy has made of the host. */
import { request as httpRequest } from 'node:http';
import { Agent, type RequestOptions } from 'node:https';
import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import { PeerDistError } from '../../../lib/errors.ts';
import { formatListen, type ListenAddress } from '../options/units.ts';

export interface TunnelAgentOptions {
  readonly proxy: ListenAddress;
  /** Authorities of the proxy, PEM. Nobody else's are trusted: a tunnel that the proxy does not read ends here. */
  readonly ca: string;
  /** Milliseconds without a byte. */
  readonly timeoutMs: number;
  /** Connections kept for each host. */
  readonly concurrency: number;
}

export class TunnelAgent extends Agent {
  readonly #tunnel: TunnelAgentOptions;
  /** What is being opened, and nobody's yet. */
  readonly #opening = new Set<{ destroy: (error?: Error) => unknown }>();

  constructor(options: TunnelAgentOptions) {
    super({ keepAlive: true, maxFreeSockets: options.concurrency });
    this.#tunnel = options;
  }

  override destroy(): void {
    super.destroy();
    for (const each of this.#opening) each.destroy(new Error('not wanted any more'));
  }

  override createConnection(
    { host, port }: RequestOptions,
    callback: (error: Error | null, stream: Duplex) => void,
  ): undefined {
    void this.#open({ host: (host as string).replace(/^\[|\]$/g, ''), port: Number(port) }).then(
      (stream) => callback(null, stream),
      // With an error there is no stream.
      (error: Error) => (callback as (error: Error) => void)(error),
    );
  }

  async #open(target: ListenAddress): Promise<Duplex> {
    const socket = await this.#connect(target);
    return new Promise((resolve, reject) => {
      const { host } = target;
      const secure = connectTls({
        socket,
        host,
        ca: this.#tunnel.ca,
        ALPNProtocols: ['http/1.1'],
        ...(isIP(host) === 0 ? { servername: host } : {}),
      });
      this.#opening.add(secure);
      const tooLong = (): void => void secure.destroy(new Error('silent for too long'));
      const fail = (error: Error): void => {
        this.#opening.delete(secure);
        socket.destroy();
        reject(
          new PeerDistError(
            'ERR_PEERDIST_ORIGIN_PROTOCOL',
            `the proxy does not read ${host}, or with an authority that is not in --proxy-ca (${error.message}): a tunnel cannot be preheated`,
            { cause: error },
          ),
        );
      };
      secure.setTimeout(this.#tunnel.timeoutMs, tooLong);
      secure.once('error', fail);
      secure.once('secureConnect', () => {
        this.#opening.delete(secure);
        // From here on each request has its own.
        secure.setTimeout(0).off('timeout', tooLong).off('error', fail);
        resolve(secure);
      });
    });
  }

  #connect(target: ListenAddress): Promise<Duplex> {
    const { proxy, timeoutMs } = this.#tunnel;
    return new Promise((resolve, reject) => {
      const path = formatListen(target);
      const request = httpRequest({
        ...proxy,
        method: 'CONNECT',
        path,
        headers: { host: path },
        agent: false,
        timeout: timeoutMs,
      });
      this.#opening.add(request);
      request.once('close', () => this.#opening.delete(request));
      request.once('connect', ({ statusCode }, socket) => {
        this.#opening.delete(request);
        socket.setTimeout(0);
        if (statusCode === 200) return resolve(socket);
        socket.destroy();
        return reject(
          new PeerDistError('ERR_PEERDIST_ORIGIN_UNREACHABLE', `the proxy answers ${statusCode} to CONNECT ${path}`),
        );
      });
      request.once('timeout', () => request.destroy(new Error('silent for too long')));
      request.once('error', reject);
      request.end();
    });
  }
}
