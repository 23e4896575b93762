/** Fills the page from the stream of events. Everything it shows is put in as text. */
(() => {
  const { draw, format } = globalThis.peerdistPlots;
  const element = (id) => document.getElementById(id);
  const bytes = (value) => format(value, 'bytes');
  const set = (id, text) => {
    if (element(id).textContent !== text) element(id).textContent = text;
  };

  const TITLES = { branch: 'branch office', reverse: 'head office', hosted: 'hosted cache' };
  const SOURCES = {
    store: 'own store',
    peer: 'peers',
    hosted_cache: 'hosted cache',
    uploaded: 'given to clients as a hosted cache',
    described: 'sent as hashes instead',
    origin: 'as it came from the origin',
  };
  const STORES = { block: 'blocks', content_information: 'content information' };
  const STATES = {
    answers: 'answers',
    new: 'not asked yet, or no answer yet',
    doubtful: 'did not answer lately',
    avoided: 'left alone for a while: failed or lied',
  };

  /** Text and elements as the children of a new element. */
  function make(tag, children, attributes = {}) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  /** Shows a list anew, and a sentence where it is empty. */
  function list(id, items, nothing) {
    element(id).replaceChildren(...(items.length > 0 ? items : [make('li', [nothing], { class: 'quiet' })]));
  }

  function bar(label, value, limit) {
    const progress = make('progress', [], { 'aria-label': label });
    if (limit > 0) {
      progress.max = limit;
      progress.value = Math.min(value, limit);
    }
    return progress;
  }

  function showSaved({ totals, savedBytes, saved, role }) {
    set('saved', bytes(savedBytes));
    const served = savedBytes + totals.wan;
    const share = served > 0 ? `, ${format((savedBytes / served) * 100, 'percent')} saved` : '';
    // Head office does not see what clients have already, nor that they fetch hashes of what they have just got.
    const hint = role === 'reverse' ? ' An estimate: whole bodies are not in it; the branches know better.' : '';
    const clients = role === 'reverse' ? 'Clients that understand hashes asked for' : 'Clients got';
    set(
      'saved-words',
      `${clients} ${bytes(served)}; ${bytes(totals.wan)} of it crossed the WAN${share}, since the start.${hint}`,
    );
    for (const span of ['hour', 'day', 'week']) set(`saved-${span}`, bytes(saved[span]));
  }

  function showSources({ totals, wan, requests, uploadedBytes, role }) {
    const row = (name, value) => make('tr', [make('th', [name], { scope: 'row' }), make('td', [value])]);
    const sources = Object.entries(SOURCES).filter(([source]) => totals[source] > 0);
    element('sources').replaceChildren(
      ...sources.map(([source, name]) => row(name, bytes(totals[source]))),
      row('WAN: hashes', bytes(wan.content_information)),
      row('WAN: missing parts', bytes(wan.missing_data)),
      ...(role === 'reverse' ? [] : [row('WAN: whole bodies', bytes(wan.plain))]),
      ...(role === 'branch' ? [row('given to peers', bytes(uploadedBytes))] : []),
      row('requests', format(requests, 'count')),
    );
  }

  function showLists({ stores, live, concerns, trouble }) {
    list(
      'stores',
      stores.map(({ name, bytes: held, limit }) => {
        const label = STORES[name] ?? name;
        const most = limit > 0 ? ` of ${bytes(limit)}` : '';
        return make('li', [`${label}: ${bytes(held)}${most}`, ...(limit > 0 ? [bar(label, held, limit)] : [])]);
      }),
      'nothing is kept',
    );
    const more = live.downloadCount - live.downloads.length;
    list(
      'downloads',
      [
        ...live.downloads.map(({ url, sentBytes, length, seconds }) => {
          const most = length > 0 ? ` of ${bytes(length)}` : '';
          const name = url || 'a download';
          return make('li', [
            `${name}: ${bytes(sentBytes)}${most}, ${format(seconds, 'seconds')}`,
            bar(name, sentBytes, length),
          ]);
        }),
        ...(more > 0 ? [make('li', [`and ${more} more`])] : []),
      ],
      'nothing',
    );
    list(
      'neighbours',
      live.neighbours.map(({ name, kind, state, blockMs }) => {
        const speed = blockMs === undefined ? '' : `, ${format(blockMs / 1000, 'seconds')} a block`;
        const is = make('span', [STATES[state] ?? state], state === 'avoided' ? { class: 'bad' } : {});
        return make('li', [`${kind === 'peer' ? 'peer' : 'hosted cache'} ${name}: `, is, speed]);
      }),
      'none known',
    );
    list(
      'contents',
      live.contents.map(({ url, savedBytes, requests }) =>
        make('li', [
          `${url}: ${bytes(savedBytes)} saved, ${format(requests, 'count')} ${requests === 1 ? 'request' : 'requests'}`,
        ]),
      ),
      'nothing yet',
    );
    list(
      'concerns',
      [
        ...(trouble ? [make('li', [trouble], { class: 'bad' })] : []),
        ...concerns.map(({ text, count }) => make('li', [`${text}: ${format(count, 'count')}`])),
      ],
      'nothing: all is well',
    );
  }

  function showNow(now) {
    const place = now.site === undefined ? '' : ` · ${now.site}`;
    const title = `peerdist ${TITLES[now.role] ?? now.role}${place}`;
    set('title', title);
    document.title = title;
    set('state', now.isReady ? 'takes requests' : 'is ending or starting: takes no new requests');
    element('state').className = now.isReady ? '' : 'bad';
    set('footer', `peerdist ${now.version} · as of ${format(now.atMs / 1000, 'time')}`);
    element('neighbours-section').hidden = now.role !== 'branch';
    element('contents-section').hidden = !now.showsNames;
    showSaved(now);
    showSources(now);
    showLists(now);
    element('main').hidden = false;
  }

  let history;
  let role;
  function showPlot() {
    if (history === undefined || element('main').hidden) return;
    const span = document.querySelector('input[name=span]:checked').value;
    const buckets = history[span];
    const known = role === 'reverse' ? ['described', 'wan'] : ['store', 'peer', 'hosted_cache', 'uploaded', 'origin'];
    const shown = known.filter((source) => source !== 'uploaded' || role === 'hosted');
    draw(element('plot'), {
      title: `Bytes by where they came from, last ${span}`,
      x: { label: 'time', unit: 'time', values: buckets.map(({ startMs }) => startMs / 1000) },
      y: { label: 'bytes', unit: 'bytes' },
      stacked: role !== 'reverse',
      series: shown.map((source) => ({
        label: SOURCES[source] ?? 'over the WAN for it',
        values: buckets.map((bucket) => bucket.bytes[source]),
      })),
    });
  }
  element('spans').addEventListener('change', showPlot);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', showPlot);

  const HANDLERS = {
    now(data) {
      role = data.role;
      showNow(data);
      if (element('plot').uplot === undefined) showPlot();
    },
    history(data) {
      history = data;
      showPlot();
    },
  };

  function take(event) {
    const lines = event.split('\n');
    const name = lines.find((line) => line.startsWith('event: '))?.slice(7);
    const data = lines.find((line) => line.startsWith('data: '))?.slice(6);
    if (name !== undefined && data !== undefined) HANDLERS[name]?.(JSON.parse(data));
  }

  /** Reads the stream to its end. Not an EventSource: that cannot send a token. */
  async function listen() {
    const token = sessionStorage.getItem('token');
    const response = await fetch('events', token === null ? {} : { headers: { authorization: `Bearer ${token}` } });
    element('token-form').hidden = response.status !== 401;
    if (response.status === 401) return false;
    if (!response.ok) throw new Error(`the service answered ${response.status}`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return true;
      text += value;
      const events = text.split('\n\n');
      text = events.pop();
      for (const event of events) take(event);
    }
  }

  async function follow() {
    for (;;) {
      try {
        if (!(await listen())) return set('state', 'a token is wanted');
        set('state', 'the connection has ended; trying again');
      } catch (error) {
        set('state', `not reachable (${error.message}); trying again`);
      }
      element('state').className = 'bad';
      await new Promise((resolve) => {
        setTimeout(resolve, 2000);
      });
    }
  }
  element('token-form').addEventListener('submit', (event) => {
    event.preventDefault();
    sessionStorage.setItem('token', element('token').value);
    void follow();
  });
  void follow();
})();
