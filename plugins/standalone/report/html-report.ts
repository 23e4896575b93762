/** Reports that a person opens in a browser, sends by mail and keeps: one file with everything in it, which asks no other host for anything. */
import { plotAssets } from '../../dashboard/index.ts';

/** `time` is seconds since 1970; `percent` is 0 to 100. */
export type PlotUnit = 'time' | 'bytes' | 'seconds' | 'percent' | 'count';

/** Every series has as many values as `x`; `null` is a gap. `plugins/dashboard/page/plots.js` draws it. */
export interface Plot {
  readonly title: string;
  readonly x: PlotAxis & { readonly values: readonly number[] };
  readonly y: PlotAxis;
  /** One on top of the other, the first at the bottom. */
  readonly stacked?: boolean;
  readonly series: readonly { readonly label: string; readonly values: readonly (number | null)[] }[];
}

export interface PlotAxis {
  readonly label: string;
  readonly unit: PlotUnit;
  readonly logarithmic?: boolean;
}

/** Plain text in every cell; the first column is what a row is about. */
export interface ReportTable {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

export interface Report {
  readonly title: string;
  /** Sentences at the top. */
  readonly summary: readonly string[];
  readonly sections: readonly (Plot | ReportTable)[];
}

/** The report as a whole HTML document. Text is shown as text, whatever is in it. */
export function htmlReport({ title, summary, sections }: Report): string {
  const { script, style } = plotAssets();
  const plots: Plot[] = [];
  const parts = sections.map((section) => {
    if ('rows' in section) return tableHtml(section);
    plots.push(section);
    return `<section><h2>${escape(section.title)}</h2><div class="plot" data-plot="${plots.length - 1}"></div></section>`;
  });
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>${escape(title)}</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${escape(title)}</h1>
${summary.map((sentence) => `<p>${escape(sentence)}</p>`).join('\n')}
${parts.join('\n')}
</main>
<script type="application/json" id="plots">${JSON.stringify(plots).replaceAll('<', String.raw`\u003c`)}</script>
<script>${script}
const plots = JSON.parse(document.getElementById('plots').textContent);
for (const element of document.querySelectorAll('[data-plot]')) peerdistPlots.draw(element, plots[element.dataset.plot]);
</script>
</body>
</html>
`;
}

function tableHtml({ title, head, rows }: ReportTable): string {
  const columns = head.map((cell) => `<th scope="col">${escape(cell)}</th>`).join('');
  const lines = rows.map(
    ([first = '', ...rest]) =>
      `<tr><th scope="row">${escape(first)}</th>${rest.map((cell) => `<td>${escape(cell)}</td>`).join('')}</tr>`,
  );
  return `<section><h2>${escape(title)}</h2><div class="scroller" tabindex="0" role="region" aria-label="${escape(title)}"><table><thead><tr>${columns}</tr></thead><tbody>${lines.join('')}</tbody></table></div></section>`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ENTITIES[character] as string);
}
