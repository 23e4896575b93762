import { OutgoingMessage, type ServerResponse } from 'node:http';

type Method<Result> = (...args: readonly unknown[]) => Result;

/** Stands where Node keeps the head it has made, so that everybody sees there is one. */
const HELD_HEAD = 'held';

/** A ServerResponse as it was before its methods were replaced: those of Node, or of whatever middleware came first. */
export class NativeResponse {
  readonly writeHead: Method<ServerResponse>;
  readonly write: Method<boolean>;
  readonly end: Method<ServerResponse>;
  readonly flushHeaders: Method<void>;
  readonly destroy: Method<ServerResponse>;
  /** With what Node's types leave out. */
  readonly #response: ServerResponse & { _header: string | null; getRawHeaderNames(): string[] };

  constructor(response: ServerResponse) {
    this.#response = response as ServerResponse & { _header: string | null; getRawHeaderNames(): string[] };
    this.writeHead = response.writeHead.bind(response) as Method<ServerResponse>;
    this.write = response.write.bind(response) as Method<boolean>;
    this.end = response.end.bind(response) as Method<ServerResponse>;
    this.flushHeaders = response.flushHeaders.bind(response);
    this.destroy = response.destroy.bind(response) as Method<ServerResponse>;
  }

  get writableEnded(): boolean {
    return Reflect.get(OutgoingMessage.prototype, 'writableEnded', this.#response);
  }

  get writableNeedDrain(): boolean {
    return Reflect.get(OutgoingMessage.prototype, 'writableNeedDrain', this.#response);
  }

  /** Makes the application, middleware and Node see a head that has been sent: nobody can change it any more. */
  closeHead(): void {
    this.#response._header = HELD_HEAD;
  }

  /** Takes that back. */
  openHead(): void {
    this.#response._header = null;
  }

  /** Changes fields of a head that is open; undefined removes one. Names keep the case that the application gave them. */
  edit(changes: ReadonlyMap<string, string | readonly string[] | undefined>): void {
    const response = this.#response;
    const names = new Map(response.getRawHeaderNames().map((name) => [name.toLowerCase(), name]));
    for (const [name, value] of changes) {
      // Node remembers what has been removed, even where it was not there, and then leaves out its own.
      if (value !== undefined) response.setHeader(names.get(name) ?? name, value);
      else if (names.has(name)) response.removeHeader(name);
    }
  }
}
