/**
 * Plots for the dashboard and for reports: `peerdistPlots.draw(element, plot)`, on the uPlot that the page has loaded before.
 *
 * @typedef {'time' | 'bytes' | 'seconds' | 'percent' | 'count'} Unit `time` is seconds since 1970; `percent` is 0 to 100
 * @typedef {{ label: string, values: (number | null)[] }} Series
 * @typedef {{
 *   title: string,
 *   x: { label: string, unit: Unit, logarithmic?: boolean, values: number[] },
 *   y: { label: string, unit: Unit, logarithmic?: boolean },
 *   stacked?: boolean,
 *   series: Series[],
 * }} Plot Every series has as many values as `x`; `null` is a gap.
 */
globalThis.peerdistPlots = (() => {
  const { uPlot } = globalThis;
  const HEIGHT = 240;
  /** Colours that people with any colour vision tell apart (Okabe and Ito); the page's theme has a set for dark. */
  const color = (index) =>
    getComputedStyle(document.documentElement)
      .getPropertyValue(`--series-${index % 6}`)
      .trim();
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  function bytes(value) {
    let rest = value;
    let unit = 0;
    while (Math.abs(rest) >= 1024 && unit < BYTE_UNITS.length - 1) {
      rest /= 1024;
      unit += 1;
    }
    const digits = unit === 0 || Math.abs(rest) >= 100 ? 0 : 1;
    return `${rest.toFixed(digits)} ${BYTE_UNITS[unit]}`;
  }

  /** A value for people. */
  function format(value, unit) {
    if (value === null || value === undefined) return '–';
    if (unit === 'bytes') return bytes(value);
    if (unit === 'percent') return `${value.toFixed(1)} %`;
    if (unit === 'time') return new Date(value * 1000).toLocaleString();
    if (unit === 'seconds') return value < 1 ? `${(value * 1000).toPrecision(3)} ms` : `${value.toPrecision(3)} s`;
    return value.toLocaleString();
  }

  /** Each series on top of those before it; the first one is at the bottom. */
  function stack(series) {
    let below = [];
    return series.map(({ values }) => {
      below = values.map((value, index) => (value ?? 0) + (below[index] ?? 0));
      return below;
    });
  }

  function axis({ label, unit }, stroke) {
    return {
      stroke,
      grid: { stroke: ink('--line'), width: 1 },
      ticks: { stroke: ink('--line'), width: 1 },
      ...(unit === 'time'
        ? {}
        : {
            label,
            labelSize: 20,
            values: (_plot, ticks) => ticks.map((tick) => (tick === null ? '' : format(tick, unit))),
          }),
      size: unit === 'time' ? undefined : 72,
    };
  }

  function options(plot, width) {
    const stroke = ink('--ink');
    const scale = (each) => ({ time: each.unit === 'time', ...(each.logarithmic ? { distr: 3 } : {}) });
    // Drawn from the top of the stack down, so that each area hides what is beneath the one below it.
    const order = plot.series.map((_, index) => index);
    if (plot.stacked) order.reverse();
    return {
      order,
      settings: {
        width,
        height: HEIGHT,
        scales: {
          x: scale(plot.x),
          y: {
            ...scale(plot.y),
            ...(plot.y.logarithmic ? {} : { range: (_plot, min, max) => [Math.min(0, min), max > 0 ? max * 1.05 : 1] }),
          },
        },
        axes: [{ ...axis(plot.x, stroke), size: 48 }, axis(plot.y, stroke)],
        series: [
          { label: plot.x.label, value: (_plot, value) => format(value, plot.x.unit) },
          ...order.map((index) => ({
            label: plot.series[index].label,
            stroke: color(index),
            fill: plot.stacked ? color(index) : undefined,
            width: plot.stacked ? 0 : 2,
            // What happened in a piece of time is as wide as that.
            ...(plot.stacked ? { paths: uPlot.paths.bars({ size: [1], align: 1, gap: 0 }) } : {}),
            points: { show: !plot.stacked && plot.x.values.length < 3 },
            // A stacked series is drawn at its height, and said by its own value.
            value: (_plot, _value, _series, at) =>
              format(at === null ? null : plot.series[index].values[at], plot.y.unit),
          })),
        ],
      },
    };
  }

  /** The numbers of a plot as a table: for screen readers, and for whoever wants to copy them. */
  function table(plot) {
    const element = document.createElement('table');
    const row = (tag, cells) => {
      const line = document.createElement('tr');
      cells.forEach((text, index) => {
        const cell = document.createElement(index === 0 ? 'th' : tag);
        if (cell.tagName === 'TH') cell.scope = tag === 'th' ? 'col' : 'row';
        cell.textContent = text;
        line.append(cell);
      });
      element.append(line);
    };
    row('th', [plot.x.label, ...plot.series.map(({ label }) => label)]);
    plot.x.values.forEach((value, at) =>
      row('td', [format(value, plot.x.unit), ...plot.series.map(({ values }) => format(values[at], plot.y.unit))]),
    );
    return element;
  }

  /**
   * Draws a plot into an element that has a width, and its numbers as a table below.
   *
   * @param {HTMLElement} element emptied first; call again to draw anew
   * @param {Plot} plot
   */
  function draw(element, plot) {
    const wasOpen = element.querySelector('details')?.open ?? false;
    element.uplot?.destroy();
    element.replaceChildren();
    const canvas = document.createElement('div');
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', `${plot.title}; the numbers are in the table below`);
    const numbers = document.createElement('details');
    const summary = document.createElement('summary');
    summary.textContent = 'Numbers';
    numbers.open = wasOpen;
    const scroller = document.createElement('div');
    scroller.className = 'scroller';
    scroller.tabIndex = 0;
    scroller.setAttribute('role', 'region');
    scroller.setAttribute('aria-label', `${plot.title}: numbers`);
    scroller.append(table(plot));
    numbers.append(summary, scroller);
    element.append(canvas, numbers);
    const { settings, order } = options(plot, element.clientWidth);
    const heights = plot.stacked ? stack(plot.series) : plot.series.map(({ values }) => values);
    element.uplot = new uPlot(settings, [plot.x.values, ...order.map((index) => heights[index])], canvas);
    if (element.observer === undefined) {
      element.observer = new ResizeObserver(() =>
        element.uplot?.setSize({ width: element.clientWidth, height: HEIGHT }),
      );
      element.observer.observe(element);
    }
  }

  return { draw, format };
})();
