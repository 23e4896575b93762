/** Every command of the first documents a newcomer reads. */
import { testDocuments } from '../support/documents.ts';

await testDocuments(['README.md', 'plugins/standalone/README.md']);
