export { pageFile, plotAssets } from './plot-assets.ts';
