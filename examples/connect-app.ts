/**
 * An Express application that publishes the files of a folder: clients that know BranchCache get hashes from the second time on, all others the
 * files. `node dist/examples/connect-app.js [FOLDER]`
 */
import express from 'express';
import { ServerSecret } from 'peerdist';
import { connect } from 'peerdist/connect';

const [folder = '.'] = process.argv.slice(2);

const app = express();
app.use(connect({ serverSecret: ServerSecret.fromText(process.env['PEERDIST_SECRET'] ?? 'only for the example') }));
app.get('/', (_request, response) => void response.send('files are under /files\n'));
app.use('/files', express.static(folder));

const server = app.listen(0, '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${(server.address() as { port: number }).port}`);
});
