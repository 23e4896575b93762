/**
 * SOAP 1.2 envelopes as WS-Discovery uses them. Read by a strict, namespace-aware parser; a document type, with which XML attacks begin, is
 * refused. Written by hand, because iPXE looks for literal tags and not for XML.
 */
import { SaxesParser, type SaxesTagNS } from 'saxes';
import { PeerDistError } from '../../errors.ts';
import { NAMESPACES } from './constants.ts';

type Prefix = keyof typeof NAMESPACES;

/** Elements one envelope may have; a datagram has room for ten thousand. Policy, not protocol. */
const MAX_ELEMENTS = 1024;
/**
 * Elements inside each other; 6 are needed. Looking up a prefix costs as many steps, and there is room for thousands of prefixes. Policy, not
 * protocol.
 */
const MAX_DEPTH = 32;

/** An element and what is in it. */
export class XmlElement {
  readonly uri: string;
  readonly local: string;
  readonly children: XmlElement[] = [];
  text = '';
  readonly #tag: SaxesTagNS;
  readonly #parser: SaxesParser<{ xmlns: true }>;
  /** Namespaces of qualified names in the text; they can only be resolved while the element is open. */
  #names: readonly { readonly uri: string | undefined; readonly local: string }[] | undefined;

  constructor(tag: SaxesTagNS, parser: SaxesParser<{ xmlns: true }>) {
    this.uri = tag.uri;
    this.local = tag.local;
    this.#tag = tag;
    this.#parser = parser;
  }

  is(prefix: Prefix, local: string): boolean {
    return this.uri === NAMESPACES[prefix] && this.local === local;
  }

  /** Children of that name. */
  all(prefix: Prefix, local: string): XmlElement[] {
    return this.children.filter((child) => child.is(prefix, local));
  }

  /** The one child of that name. @throws {@link PeerDistError} `ERR_PEERDIST_MALFORMED_MESSAGE` when there is none, or another */
  only(prefix: Prefix, local: string): XmlElement {
    const [first, ...others] = this.all(prefix, local);
    if (first === undefined || others.length > 0) throw malformed(`there must be one ${prefix}:${local}`);
    return first;
  }

  attribute(name: string): string | undefined {
    return this.#tag.attributes[name]?.value;
  }

  /** The text as words. */
  get words(): readonly string[] {
    return this.text.split(/[ \t\r\n]+/).filter((word) => word !== '');
  }

  /** True when the text, a list of qualified names, names that one. */
  names(prefix: Prefix, local: string): boolean {
    return (this.#names ?? []).some((name) => name.uri === NAMESPACES[prefix] && name.local === local);
  }

  /** Called where the element ends. */
  close(): void {
    if (this.local !== 'Types') return;
    this.#names = this.words.map((word) => {
      const [prefix = '', local] = word.split(':');
      return local === undefined
        ? { uri: this.#parser.resolve(''), local: prefix }
        : { uri: this.#parser.resolve(prefix), local };
    });
  }
}

/** What every message has, and the body's only child. */
export interface Envelope {
  readonly action: string;
  readonly messageId: string;
  readonly relatesTo: string | undefined;
  readonly content: XmlElement;
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_MALFORMED_MESSAGE` for anything but one SOAP envelope with the fields of WS-Addressing */
export function readEnvelope(datagram: Uint8Array): Envelope {
  const envelope = parse(decode(datagram));
  if (!envelope.is('soap', 'Envelope')) throw malformed('not a SOAP envelope');
  const header = envelope.only('soap', 'Header');
  const content = envelope.only('soap', 'Body').children;
  if (content.length !== 1) throw malformed('a body has one child');
  const [relatesTo] = header.all('wsa', 'RelatesTo');
  return {
    action: header.only('wsa', 'Action').text.trim(),
    messageId: identifier(header.only('wsa', 'MessageID')),
    relatesTo: relatesTo && identifier(relatesTo),
    content: content[0] as XmlElement,
  };
}

/** A URI of the kind everybody sends, `urn:uuid:…`. It goes into the answer, so it must be short and must not be XML. */
function identifier({ text }: XmlElement): string {
  const id = text.trim();
  if (!/^[\w:.-]{1,128}$/.test(id)) throw malformed('not an identifier of a message');
  return id;
}

/** An envelope around a header and a body that are XML already. */
export function writeEnvelope(header: string, body: string): Uint8Array {
  const declarations = Object.entries(NAMESPACES).map(([prefix, uri]) => ` xmlns:${prefix}="${uri}"`);
  return Buffer.from(
    `<?xml version="1.0" encoding="utf-8"?><soap:Envelope${declarations.join('')}>` +
      `<soap:Header>${header}</soap:Header><soap:Body>${body}</soap:Body></soap:Envelope>`,
  );
}

function decode(datagram: Uint8Array): string {
  try {
    // Drops the byte order mark that Microsoft's serializer writes.
    return new TextDecoder('utf-8', { fatal: true }).decode(datagram);
  } catch (cause) {
    throw malformed('not UTF-8', cause);
  }
}

function parse(text: string): XmlElement {
  const parser = new SaxesParser({ xmlns: true, position: false });
  const open: XmlElement[] = [];
  let root: XmlElement | undefined;
  let elements = 0;
  parser.on('doctype', () => {
    throw malformed('a document type');
  });
  parser.on('error', (cause) => {
    throw malformed('not well-formed XML', cause);
  });
  parser.on('opentag', (tag) => {
    elements += 1;
    if (elements > MAX_ELEMENTS) throw malformed('too many elements');
    if (open.length >= MAX_DEPTH) throw malformed('elements too deep');
    const element = new XmlElement(tag, parser);
    open.at(-1)?.children.push(element);
    open.push(element);
    root ??= element;
  });
  const addText = (piece: string): void => {
    const element = open.at(-1);
    if (element !== undefined) element.text += piece;
  };
  parser.on('text', addText);
  parser.on('cdata', addText);
  parser.on('closetag', () => open.pop()?.close());
  parser.write(text).close();
  if (root === undefined) throw malformed('no element');
  return root;
}

export function malformed(message: string, cause?: unknown): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_MALFORMED_MESSAGE', message, { spec: 'MS-PCCRD 2.2', cause });
}
