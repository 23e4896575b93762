export { Dashboard, type DashboardOptions, type Route, type Savings } from './dashboard.ts';
export type { Download, Live, Neighbour, SavedContent } from './facts.ts';
export { mergeLive, SavedContents, MAX_SHOWN } from './live.ts';
export type { SavedDay } from './history.ts';
export { pageFile, plotAssets } from './plot-assets.ts';
