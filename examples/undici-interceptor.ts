/** An undici dispatcher whose GET requests read through the block cache, with a redirect followed. `node dist/examples/undici-interceptor.js URL` */
import { Agent, interceptors } from 'undici';
import { peerdist } from 'peerdist/undici';

const [url = 'http://127.0.0.1:80/'] = process.argv.slice(2);

const totals = { origin: 0, cache: 0 };
const cache = peerdist({
  observer: (observation) => {
    if (observation.type === 'delivered' && observation.source !== 'origin') totals.cache += observation.bytes;
    if (observation.type === 'wan') totals.origin += observation.bytes;
  },
});
const agent = new Agent();
// The last one is asked first: a redirect is followed, and each step of it goes through the cache.
const dispatcher = agent.compose(cache, interceptors.redirect({ maxRedirections: 3 }));

for (const name of ['first', 'second']) {
  const { origin, pathname, search } = new URL(url);
  const { statusCode, body } = await dispatcher.request({ origin, path: pathname + search, method: 'GET' });
  const { byteLength } = await body.bytes();
  console.log(
    `${name}: ${statusCode}, ${byteLength} bytes; so far ${totals.origin} from the origin, ${totals.cache} from the cache`,
  );
}

await cache.close();
await agent.close();
