/**
 * A Fastify application with one file: what it sends is hashed on its way, and the tag it sends names the hashes.
 * `node dist/examples/fastify-app.js [FILE]`
 */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import fastify from 'fastify';
import { peerdist } from 'peerdist/fastify';

const [file = process.execPath] = process.argv.slice(2);

const app = fastify();
await app.register(peerdist, { minBytes: 64 * 1024 });

app.get('/file', async (request, reply) => {
  const { size, mtimeMs } = await stat(file);
  const etag = `"${size.toString(16)}-${Math.floor(mtimeMs).toString(16)}"`;
  reply.header('etag', etag);
  // A 304 is enough for hashes to go out; the file is not even opened.
  if (request.headers['if-none-match'] === etag) return reply.code(304).send();
  return reply.header('content-length', size).type('application/octet-stream').send(createReadStream(file));
});

console.log(`listening on ${await app.listen({ host: '127.0.0.1', port: 0 })}`);
