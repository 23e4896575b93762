/** What the other proxies of a site know, as resources that this one has still to ask the origin about, and what they are told of ours. */
import type { Clock } from '../../lib/clock.ts';
import { isPeerDistError, PeerDistError } from '../../lib/errors.ts';
import {
  CONDITION_FIELDS,
  endToEndFields,
  hasConditions,
  type HeaderFields,
  isStrongTag,
  parseCacheControl,
  fieldValue,
  validatorsOf,
  withoutFields,
} from '../../lib/http/index.ts';
import type { ProxyRequest } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import type { PeerDist } from '../../lib/peerdist/index.ts';
import { cachedHead, CachedResource, MIN_SHARED_BYTES, openPart } from './cached-resource.ts';
import { type Catalogue, selectingNames } from './catalogue.ts';
import { Freshness, type FreshnessRules } from './freshness.ts';
import type { Directory, DirectoryEntry, DirectoryQuestion, ResolvedBlockCacheOptions } from './options.ts';

export interface SiblingsComponents {
  readonly directory: Directory;
  readonly peerdist: PeerDist;
  readonly catalogue: Catalogue;
  readonly options: ResolvedBlockCacheOptions;
  readonly observer: Observer;
  readonly clock: Clock;
}

/** Milliseconds in which nobody is asked about a resource again: what cannot be kept would be asked about each time. Policy, not protocol. */
const ASK_AGAIN_MS = 60_000;
/** Such resources remembered. */
const MAX_ASKED = 4_096;
/** Request fields that say who somebody is, and those that select nothing. */
const UNTOLD: ReadonlySet<string> = new Set([
  ...CONDITION_FIELDS,
  'if-range',
  'range',
  'cache-control',
  'pragma',
  'referer',
  'forwarded',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
  'via',
  'x-p2p-peerdist',
  'x-p2p-peerdistex',
]);
const PERSONAL = /^(?:authorization|cookie|proxy-.*)$/;

/** The origin has the last word on everything that somebody else knows. */
const UNASKED: Omit<FreshnessRules, 'bornAt'> = {
  isStorable: true,
  isForbidden: false,
  sharesAuthorized: false,
  isJoinable: false,
  joinableUntil: 0,
  staleAt: 0,
  revalidatingUntil: 0,
  insteadOfErrorUntil: 0,
  disconnectedUntil: 0,
};

export class Siblings {
  readonly #components: SiblingsComponents;
  /** Resources asked about, and until when that will do. */
  readonly #asked = new Map<string, number>();

  constructor(components: SiblingsComponents) {
    this.#components = components;
    components.directory.answerWith((question) => this.#answer(question));
  }

  /** What others know of a resource that is not known here: stale, and the caller holds it. Never rejects. */
  async find(request: ProxyRequest): Promise<CachedResource | undefined> {
    const { directory, observer } = this.#components;
    if (!isAskable(request) || !this.#isDue(request.key)) return undefined;
    const question = { key: request.key, headers: toldFields(request.headers) };
    try {
      const entry = await directory.find(question, request.signal);
      return entry && (await this.#open(entry));
    } catch (error) {
      if (!isPeerDistError(error)) throw error;
      request.report(observer, { type: 'content_information', result: 'rejected' });
      return undefined;
    }
  }

  /** @throws {@link PeerDistError} for what cannot be true, or cannot be used */
  async #open({ head: told, length, contentInformation }: DirectoryEntry): Promise<CachedResource> {
    const { peerdist, options, clock } = this.#components;
    const head = cachedHead(withoutFields(endToEndFields(told), ['set-cookie']));
    const isUsable =
      isShared(head) &&
      length >= MIN_SHARED_BYTES &&
      length <= options.maxContentBytes &&
      contentInformation.byteLength <= options.maxContentInformationBytes;
    if (!isUsable) throw contradiction();
    const part = await openPart(peerdist, contentInformation);
    if (part.range.offset !== 0 || part.range.length !== length) {
      await part.handle.close();
      throw contradiction();
    }
    const resource = new CachedResource({
      status: 200,
      statusText: undefined,
      validators: validatorsOf(head),
      head,
      freshness: new Freshness({ ...UNASKED, bornAt: clock.now() }, clock),
      length,
      // Nobody has said; the origin is asked by those who want to know.
      isPlain: false,
    });
    resource.addPart(part, contentInformation);
    return resource;
  }

  /** What others may know: whole contents that a shared cache may keep, and that peers are given. */
  async #answer({ key, headers }: DirectoryQuestion): Promise<DirectoryEntry | undefined> {
    const resource = await this.#components.catalogue.find({ key, headers });
    if (resource === undefined) return undefined;
    const { whole, length = 0, head, freshness, status } = resource;
    if (whole === undefined || whole.isPrivate || length < MIN_SHARED_BYTES || status !== 200) return undefined;
    if (!freshness.isStorable || !isShared(head)) return undefined;
    const contentInformation = whole.handle.encodeContentInformation();
    return contentInformation && { head: withoutFields(head, ['set-cookie']), length, contentInformation };
  }

  #isDue(key: string): boolean {
    const now = this.#components.clock.now();
    if (now < (this.#asked.get(key) ?? 0)) return false;
    this.#asked.delete(key);
    this.#asked.set(key, now + ASK_AGAIN_MS);
    if (this.#asked.size > MAX_ASKED) this.#asked.delete(this.#asked.keys().next().value as string);
    return true;
  }
}

/** True for a request that could be answered with what somebody else knows, once the origin has agreed. */
function isAskable({ headers }: ProxyRequest): boolean {
  if (headers['authorization'] !== undefined || headers['pragma'] !== undefined || hasConditions(headers)) return false;
  const directives = parseCacheControl(fieldValue(headers, 'cache-control'));
  return !directives.has('no-store') && !directives.has('no-cache');
}

/** The request fields that others are told. */
function toldFields(headers: HeaderFields): HeaderFields {
  const names = Object.keys(headers).filter((name) => !UNTOLD.has(name) && !PERSONAL.test(name));
  return Object.fromEntries(names.map((name) => [name, headers[name]]));
}

/** True for an answer that is surely the same bytes for everybody who is told of it, and selected by nothing that is not told. */
function isShared(head: HeaderFields): boolean {
  const names = selectingNames(head);
  const isSelectable = names !== undefined && !names.some((name) => UNTOLD.has(name) || PERSONAL.test(name));
  return isSelectable && isStrongTag(validatorsOf(head).etag);
}

function contradiction(): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_PEER_FAILED', 'what a sibling says of a content cannot be used');
}
