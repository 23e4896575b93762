/** Head office: stand before a web server and answer capable clients with hashes. `node dist/examples/reverse-proxy.js ORIGIN [PORT]` */
import { Kit, PeerDist, ServerSecret } from 'peerdist';
import { createContentServer } from 'peerdist/plugins/content-server';
import { createProxyServer, HttpProxyHost } from 'peerdist/plugins/http-proxy';

const [origin = 'http://127.0.0.1:80', port = '0'] = process.argv.slice(2);

const peerdist = await PeerDist.open({
  serverSecret: ServerSecret.fromText(process.env['PEERDIST_SECRET'] ?? 'only for the example'),
});
const kit = new Kit({ plugins: [createContentServer({ peerdist })] });
const host = new HttpProxyHost({ proxy: createProxyServer(), kit, origin });

await kit.start();
const server = host.createServer().listen(Number(port), '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${(server.address() as { port: number }).port}`);
});
