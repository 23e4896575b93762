/** What a replay adds up. */
import { Curve } from './curve.ts';

/** Bytes that each way would have saved, less what it costs: negative where it costs more. */
export interface Ways {
  oneSided: number;
  peers: number;
  hosted: number;
}

export interface SiteSums extends Ways {
  requests: number;
  /** Bytes of all answers. */
  wanBytes: number;
  /** Of them: in tunnels; in answers that nobody may keep; in answers that the logging proxy had in its own cache. */
  tunnelBytes: number;
  otherBytes: number;
  loggedHitBytes: number;
  /** Times a one-sided cache had to ask whether a content had changed. */
  revalidations: number;
  /** What peers and hosted cache cost each. */
  contentInformationBytes: number;
  /** Of what is saved: by copies of the plain answers that head office gives before it has hashes. */
  peersAtFirst: number;
  hostedAtFirst: number;
  /** Of a one-sided cache. */
  readonly curve: Curve;
  readonly hostedCurve: Curve;
}

export interface DaySums extends Ways {
  /** Since 1970. */
  readonly day: number;
  wanBytes: number;
}

export function emptySums(): SiteSums {
  return {
    requests: 0,
    wanBytes: 0,
    tunnelBytes: 0,
    otherBytes: 0,
    loggedHitBytes: 0,
    oneSided: 0,
    peers: 0,
    hosted: 0,
    revalidations: 0,
    contentInformationBytes: 0,
    peersAtFirst: 0,
    hostedAtFirst: 0,
    curve: new Curve(),
    hostedCurve: new Curve(),
  };
}

/** Sums of several sites; the curves are those of caches that have the same size at each. */
export function totalOf(sites: readonly SiteSums[]): SiteSums {
  const total = emptySums();
  for (const { curve, hostedCurve, ...numbers } of sites) {
    total.curve.add(curve);
    total.hostedCurve.add(hostedCurve);
    for (const [name, value] of Object.entries(numbers) as [keyof typeof numbers, number][]) total[name] += value;
  }
  return total;
}

/** Adds to a day what has come to the sums of a site. */
export function addTo(day: Ways, now: Ways, before: Ways): void {
  day.oneSided += now.oneSided - before.oneSided;
  day.peers += now.peers - before.peers;
  day.hosted += now.hosted - before.hosted;
}
