/** A reverse proxy with a throttle and Prometheus metrics on the application's own registry. `node dist/examples/metrics.js ORIGIN` */
import { createServer } from 'node:http';
import { Registry } from 'prom-client';
import { Kit, PeerDist } from 'peerdist';
import { createContentServer } from 'peerdist/plugins/content-server';
import { createProxyServer, HttpProxyHost } from 'peerdist/plugins/http-proxy';
import { createMetrics } from 'peerdist/plugins/metrics';
import { throttle } from './throttle.ts';

const [origin = 'http://127.0.0.1:80'] = process.argv.slice(2);

const { observer, exposition } = createMetrics({ registry: new Registry() });
const peerdist = await PeerDist.open({ components: { observer } });
const kit = new Kit({
  plugins: [throttle({ bytesPerSecond: 50e6 }), createContentServer({ peerdist, observer })],
  observer,
});
const host = new HttpProxyHost({ proxy: createProxyServer(), kit, origin, observer });
await kit.start();

const server = host.createServer().listen(0, '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${(server.address() as { port: number }).port}`);
});
const admin = createServer((_request, response) => {
  void exposition().then(({ contentType, text }) => response.setHeader('content-type', contentType).end(text));
}).listen(0, '127.0.0.1', () => {
  console.log(`metrics on http://127.0.0.1:${(admin.address() as { port: number }).port}/metrics`);
});
