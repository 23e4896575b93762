/** A server of the http-proxy package, as you may have one, that publishes what its origin sends. `node dist/examples/http-proxy-app.js ORIGIN` */
import { createServer } from 'node:http';
import httpProxy from 'http-proxy';
import { publish } from 'peerdist/http-proxy';

const [origin = 'http://127.0.0.1:80'] = process.argv.slice(2);

const proxy = httpProxy.createProxyServer({ target: origin });
const web = publish(proxy);

const server = createServer((request, response) => {
  web(request, response, {}, () => response.writeHead(502).end('the origin does not answer\n'));
}).listen(0, '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${(server.address() as { port: number }).port}`);
});
