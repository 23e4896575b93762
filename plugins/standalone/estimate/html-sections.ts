/** The plots of an estimate. */
import type { Plot, Report } from '../report/html-report.ts';
import type { CurvePoint } from './curve.ts';
import type { Estimate, NamedSite } from './estimate.ts';
import { HEAD, percentOf, rowsOf, sentences } from './report.ts';

/** Sites that have a curve of their own, and rows of the table. */
const MAX_CURVES = 6;
const MAX_HTML_ROWS = 1000;

export function htmlEstimate(estimate: Estimate): Report {
  const { sites, total } = estimate;
  const plotted = sites.length > 1 ? [{ name: 'total', sums: total }, ...sites.slice(0, MAX_CURVES)] : sites;
  return {
    title: 'What BranchCache would save',
    summary: sentences(estimate, MAX_HTML_ROWS),
    sections: [
      { title: 'Sites', head: HEAD, rows: rowsOf(estimate, MAX_HTML_ROWS) },
      ...(estimate.days.length > 1 ? [dayPlot(estimate)] : []),
      ...plotted.map(curvePlot),
    ],
  };
}

/** Share of the bytes that would have been saved on each day: an empty cache saves little at first. */
function dayPlot({ days }: Estimate): Plot {
  const share = (way: 'oneSided' | 'peers' | 'hosted'): number[] =>
    days.map((day) => percentOf(day[way], day.wanBytes));
  return {
    title: 'Saved on each day, all sites',
    x: { label: 'day', unit: 'time', values: days.map(({ day }) => day * 86_400) },
    y: { label: 'saved', unit: 'percent' },
    series: [
      { label: 'one-sided cache', values: share('oneSided') },
      { label: 'peers', values: share('peers') },
      { label: 'hosted cache', values: share('hosted') },
    ],
  };
}

function curvePlot({ name, sums }: NamedSite): Plot {
  const [oneSided, hosted] = [sums.curve.points, sums.hostedCurve.points];
  const sizes = (oneSided.length > hosted.length ? oneSided : hosted).map(({ sizeBytes }) => sizeBytes);
  // A curve that has ended goes on level.
  const values = (points: readonly CurvePoint[]): number[] =>
    sizes.map((_, at) => points[Math.min(at, points.length - 1)]?.savedBytes ?? 0);
  return {
    title: `Saved over the size of the cache: ${name}`,
    x: { label: 'size of the cache', unit: 'bytes', logarithmic: true, values: sizes },
    y: { label: 'saved', unit: 'bytes' },
    series: [
      { label: 'one-sided cache', values: values(oneSided) },
      { label: 'hosted cache', values: values(hosted) },
    ],
  };
}
