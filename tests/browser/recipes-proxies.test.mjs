// HTTP/2 and the reverse proxies of docs/recipes.md: real ones, before real servers.
import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs/promises';
import os from 'node:os';
import {after, before, it} from 'node:test';
import {recipe} from '../support/recipes.mjs';
import {Server, freePort, gets, launch, listen, program, run, until} from './support.mjs';

const MODULES = '/usr/lib/apache2/modules';
const load = names => names.map(name => `LoadModule ${name}_module ${MODULES}/mod_${name}.so\n`).join('');
let folder, browser;

before(async () => {
  folder = await fs.mkdtemp(`${os.tmpdir()}/novcomet-proxies.`);
  await fs.chmod(folder, 0o755);
  await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', '/CN=127.0.0.1', '-keyout', `${folder}/www.example.key`, '-out', `${folder}/www.example.pem`]);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await fs.rm(folder, {recursive: true, force: true});
});

/** A recipe with the ports and the certificate of this test. */
const configuration = (name, port, server) => recipe(name).replaceAll('8080', server.port)
  .replace('listen 443', `listen 127.0.0.1:${port}`).replace('*:443', `127.0.0.1:${port}`)
  .replaceAll(/\/etc\/ssl\/(certs|private)/g, folder);

const proxies = {
  nginx: async (port, server) => {
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
      .map(name => `${name}_temp_path ${folder}/${name};`).join('\n');
    await fs.writeFile(`${folder}/nginx.conf`, `daemon off; pid ${folder}/nginx.pid; error_log ${folder}/nginx.log;
      events {}
      http { access_log off; ${temporary}
      ${configuration('nginx', port, server)} }`);
    return [program('nginx'), '-e', `${folder}/nginx.log`, '-c', `${folder}/nginx.conf`];
  },
  apache: async (port, server) => {
    await fs.writeFile(`${folder}/apache.conf`, `${load(['mpm_event', 'authz_core', 'ssl', 'http2', 'proxy', 'proxy_http'])}
      ServerRoot ${folder}\nServerName localhost\nListen 127.0.0.1:${port}\nPidFile ${folder}/apache.pid
      DefaultRuntimeDir ${folder}\nErrorLog ${folder}/apache.log\nUser www-data\nGroup www-data
      ${configuration('apache-proxy', port, server)}`);
    return [program('apache2'), '-D', 'FOREGROUND', '-f', `${folder}/apache.conf`];
  },
};

/** A running proxy before a server. */
async function start(kind, server) {
  const port = await freePort(), args = await proxies[kind](port, server);
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', ...args], {stdio: ['ignore', 'ignore', 'inherit']});
  const ended = once(child, 'exit'), url = `https://127.0.0.1:${port}`;
  const answers = () => curl('-o', '/dev/null', `${url}/client.html`).then(() => true, () => child.exitCode !== null);
  await until(answers, `${kind} answers`);
  return {url, stop: () => child.kill('SIGTERM') && ended};
}

const curl = (...args) => run('curl', ['-skSf', ...args]);

/** Two visitors wait, each with its own address, where one slot of an address is all there is. */
async function bothWait(url, server) {
  const waiting = ['127.0.0.1', '127.0.0.2'].map(address =>
    curl('-g', '--interface', address, `${url}/comet.cgi?subscribed[a]=0`));
  const publish = until(async () => await server.slots() === 2, 'both wait').then(() => server.publish('a', 'It works.'));
  const [, ...answers] = await Promise.all([publish, ...waiting]);
  for (const {stdout} of answers) assert.match(stdout, /"data":"It works\."/);
}

const servers = {
  apache: () => `${load(['remoteip'])}${recipe('apache-behind')}`,
  lighttpd: () => recipe('lighttpd-behind'),
};

/** A page hears a message by an open stream and by HTTP/2. */
async function streams(where) {
  const context = await browser.newContext({ignoreHTTPSErrors: true});
  try {
    const page = await listen(context, where, 'stream');
    await page.evaluate(() => client.publish('b', 'By HTTP/2.'));
    await gets(page, 'By HTTP/2.');
    const protocol = await page.evaluate(() => performance.getEntriesByType('resource').at(-1).nextHopProtocol);
    assert.deepEqual([protocol, await page.evaluate(() => errors)], ['h2', []]);
  } finally {
    await context.close();
  }
}

it('apache answers by HTTP/2', async () => {
  const port = await freePort(), server = await Server.start('apache', {}, `${load(['ssl', 'http2'])}
    Listen 127.0.0.1:${port}
    <VirtualHost 127.0.0.1:${port}>
        SSLEngine on
        SSLCertificateFile ${folder}/www.example.pem
        SSLCertificateKeyFile ${folder}/www.example.key
        ${recipe('apache-http2')}
    </VirtualHost>\n`);
  try {
    await streams({url: `https://127.0.0.1:${port}`});
  } finally {
    await server.close();
  }
});

for (const [proxy, kind] of [['nginx', 'apache'], ['nginx', 'lighttpd'], ['apache', 'apache'], ['apache', 'lighttpd']]) {
  it(`${proxy} passes a stream of ${kind} by HTTP/2, and the visitor's address`, async () => {
    const server = await Server.start(kind, {NOVCOMET_MAX_WAITERS_PER_ADDRESS: '1'}, servers[kind]());
    const front = await start(proxy, server);
    try {
      await bothWait(front.url, server);
      await streams(front);
    } finally {
      await server.close();
      await front.stop();
    }
  });
}
