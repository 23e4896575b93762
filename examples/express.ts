/** Inside an Express application: one mount path is proxied and published, the rest is the application's own. `node dist/examples/express.js ORIGIN` */
import express from 'express';
import { Kit, PeerDist } from 'peerdist';
import { createContentServer } from 'peerdist/plugins/content-server';
import { createProxyServer, HttpProxyHost } from 'peerdist/plugins/http-proxy';

const [origin = 'http://127.0.0.1:80'] = process.argv.slice(2);

const peerdist = await PeerDist.open();
const kit = new Kit({ plugins: [createContentServer({ peerdist })] });
const host = new HttpProxyHost({ proxy: createProxyServer(), kit, origin });
await kit.start();

const app = express();
app.get('/', (_request, response) => void response.send('downloads are under /downloads\n'));
app.use('/downloads', host.middleware);

const server = app.listen(0, '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${(server.address() as { port: number }).port}`);
});
