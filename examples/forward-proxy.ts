/** Branch office: a proxy for curl, apt and browsers. `node dist/examples/forward-proxy.js [PORT]`, then `curl -x http://127.0.0.1:PORT …` */
import { Kit, MemoryBlockStore, PeerDist } from 'peerdist';
import { createBlockCache } from 'peerdist/plugins/block-cache';
import { createProxyServer, HttpProxyHost } from 'peerdist/plugins/http-proxy';

const [port = '0'] = process.argv.slice(2);

const peerdist = await PeerDist.open({
  components: { blockStore: new MemoryBlockStore({ maxBytes: 512 * 1024 * 1024 }) },
});
const kit = new Kit({ plugins: [createBlockCache({ peerdist })] });
const host = new HttpProxyHost({ proxy: createProxyServer(), kit });

await kit.start();
const server = host.createServer().listen(Number(port), '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${(server.address() as { port: number }).port}`);
});
