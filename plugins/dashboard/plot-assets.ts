import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const PAGE = new URL('../../../plugins/dashboard/page/', import.meta.url);
const require = createRequire(import.meta.url);

/** A file of the page, as it is in the package. */
export function pageFile(name: string): string {
  return readFileSync(new URL(name, PAGE), 'utf8');
}

/** What a page with plots needs: the plotting library with ours on top of it, and their style. Read anew at each call. */
export function plotAssets(): { readonly script: string; readonly style: string } {
  const library = (name: string): string => readFileSync(require.resolve(`uplot/dist/${name}`), 'utf8');
  return {
    // Under a strict policy there is no global `uPlot` but the one that this sets.
    script: `${library('uPlot.iife.min.js')}\n${pageFile('plots.js')}`,
    style: `${library('uPlot.min.css')}\n${pageFile('plots.css')}`,
  };
}
