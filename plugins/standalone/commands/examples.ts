import type { Command } from 'commander';

/** What each command's help shows at its end. A test wants one for every command. */
const EXAMPLES: Readonly<Record<string, readonly string[]>> = {
  reverse: ['peerdist reverse --origin http://127.0.0.1:80 --listen 0.0.0.0:8080'],
  branch: ['peerdist branch --listen 0.0.0.0:3128 --site hamburg', 'peerdist branch --config peerdist.yaml'],
  hosted: ['sudo peerdist hosted'],
  head: ['peerdist head --listen 0.0.0.0:3129 --allow-client 10.1.0.0/16'],
  'hosted preload': ['peerdist hosted preload http://head-office:8080/big.iso'],
  'hosted import': ['peerdist hosted import big.package'],
  publish: ['peerdist publish /srv/www/big.iso --url http://127.0.0.1:80/big.iso'],
  export: ['peerdist export http://head-office:8080/big.iso -o big.package'],
  secret: ['peerdist secret export key.bin --passphrase-file pass.txt'],
  'secret export': ['peerdist secret export key.bin --passphrase-file pass.txt'],
  'secret import': ['peerdist secret import key.bin --passphrase-file pass.txt'],
  'secret rotate': ['peerdist secret rotate'],
  ca: ['peerdist ca create interception-ca --permit packages.example.com'],
  'ca create': ['peerdist ca create interception-ca --permit packages.example.com'],
  'ca show': ['peerdist ca show interception-ca'],
  cache: ['peerdist cache stats'],
  'cache stats': ['peerdist cache stats --role branch'],
  'cache list': ['peerdist cache list --json'],
  'cache verify': ['peerdist cache verify'],
  'cache purge': ['peerdist cache purge http://head-office:8080/big.iso'],
  'cache clear': ['peerdist cache clear --older-than 30d'],
  hash: ['peerdist hash big.iso --secret-file secret.bin', 'peerdist hash big.iso --secret-file secret.bin -o big.ci'],
  inspect: ['peerdist inspect big.ci'],
  probe: ['peerdist probe http://head-office:8080/big.iso'],
  get: ['peerdist get http://head-office:8080/big.iso -o big.iso'],
  verify: ['peerdist verify http://head-office:8080/big.iso'],
  preheat: [
    'peerdist preheat http://head-office:8080/big.iso',
    'peerdist preheat --sitemap http://head-office:8080/sitemap.xml --proxy 127.0.0.1:3128',
    'peerdist preheat --apt-release http://deb.debian.org/debian/dists/stable/InRelease --match /linux-image-',
  ],
  load: ['peerdist load --proxy 127.0.0.1:3128 --profile update-wave --metrics http://127.0.0.1:9181/metrics'],
  estimate: ['peerdist estimate access.log access.log.1.gz --sites sites.txt --html report.html'],
  stats: ['peerdist stats', 'peerdist stats branch-1:9181 branch-2:9181 --csv > savings.csv'],
  doctor: ['peerdist doctor branch --config peerdist.yaml'],
  'doctor reverse': ['peerdist doctor reverse --origin http://127.0.0.1:80'],
  'doctor branch': ['peerdist doctor branch --config peerdist.yaml'],
  'doctor hosted': ['peerdist doctor hosted'],
  'doctor head': ['peerdist doctor head'],
  'check-config': ['peerdist check-config peerdist.yaml'],
  completion: ['source <(peerdist completion bash)'],
  demo: ['peerdist demo --keep'],
};

/** Puts the examples under the help of every command. */
export function addExamples(program: Command, path: readonly string[] = []): void {
  for (const command of program.commands) {
    const own = [...path, command.name()];
    const examples = EXAMPLES[own.join(' ')] ?? [];
    const title = examples.length === 1 ? 'Example' : 'Examples';
    if (examples.length > 0)
      command.addHelpText('after', `\n${title}:\n${examples.map((example) => `  ${example}`).join('\n')}`);
    addExamples(command, own);
  }
}
