/** Every command of the pages for those who operate it. */
import { testDocuments } from '../support/documents.ts';

await testDocuments([
  'plugins/standalone/OPERATING.md',
  'plugins/standalone/load/README.md',
  'plugins/standalone/estimate/README.md',
]);
