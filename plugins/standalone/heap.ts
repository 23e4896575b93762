/** How far the heap of the `peerdist` process may grow between two full collections. */
import { constants, PerformanceObserver } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';

/** Bytes of growth that are always granted. Policy, measured: half of it is not enough, more changes nothing. */
const SLACK_BYTES = 48 * 1024 * 1024;
/** From here on a heap's own growth is slack enough. */
const LARGE_HEAP_BYTES = SLACK_BYTES / 2;

/**
 * V8 collects everything whenever heap and buffers together have grown by a share of the heap. Ours is a few megabytes, while every chunk
 * of body that passes is a 64 KiB buffer: a full collection every 8 MB of traffic, and a quarter of the machine's time. Granting a fixed
 * amount instead leaves the buffers to the cheap collections of young objects. A heap that is large itself is left to V8.
 */
export function grantHeapSlack(): void {
  let granted = -1;
  const adjust = (): void => {
    const heap = process.memoryUsage().heapUsed;
    // 0 is V8's own reckoning.
    const percent = heap < LARGE_HEAP_BYTES ? Math.round((100 * SLACK_BYTES) / heap) : 0;
    if (percent === granted) return;
    granted = percent;
    setFlagsFromString(`--heap-growing-percent=${percent}`);
  };
  adjust();
  new PerformanceObserver((list) => {
    const kinds = list.getEntries().map((entry) => (entry as { detail?: { kind?: number } }).detail?.kind);
    if (kinds.includes(constants.NODE_PERFORMANCE_GC_MAJOR)) adjust();
  }).observe({ entryTypes: ['gc'] });
}
