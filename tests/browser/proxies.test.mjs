// Reverse proxies as they come, and with what administrators add to them. tests/browser/recipes-proxies.test.mjs has
// those of docs/recipes.md, with HTTP/2.
import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs/promises';
import os from 'node:os';
import {describe, it} from 'node:test';
import {Server, freePort, program, until} from './support.mjs';

const MODULES = '/usr/lib/apache2/modules';
const load = names => names.map(name => `LoadModule ${name}_module ${MODULES}/mod_${name}.so\n`).join('');

const nginx = more => async ({folder, port, server}) => {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(name => `${name}_temp_path ${folder}/${name};`);
  await fs.writeFile(`${folder}/conf`, `daemon off; pid ${folder}/pid; error_log ${folder}/log;
    events {} http { access_log off; ${temporary.join(' ')} ${more}
      server { listen 127.0.0.1:${port}; location / { proxy_pass http://127.0.0.1:${server.port}; } } }\n`);
  return [program('nginx'), '-e', `${folder}/log`, '-c', `${folder}/conf`];
};

const apache = more => async ({folder, port, server}) => {
  await fs.writeFile(`${folder}/conf`, `${load(['mpm_event', 'authz_core', 'proxy', 'proxy_http', 'filter', 'deflate'])}
    ServerRoot ${folder}\nServerName localhost\nListen 127.0.0.1:${port}\nPidFile ${folder}/pid\nDefaultRuntimeDir ${folder}
    ErrorLog ${folder}/log\nUser www-data\nGroup www-data\n${more}\nProxyPass / http://127.0.0.1:${server.port}/\n`);
  return [program('apache2'), '-D', 'FOREGROUND', '-f', `${folder}/conf`];
};

const haproxy = more => async ({folder, port, server}) => {
  await fs.writeFile(`${folder}/conf`, `defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
listen novcomet
    bind 127.0.0.1:${port}
    server web 127.0.0.1:${server.port}
${more}`);
  return [program('haproxy'), '-db', '-f', `${folder}/conf`];
};

const PROXIES = {
  'nginx as it comes': nginx(''),
  'nginx that compresses all': nginx('gzip on; gzip_types *; gzip_proxied any; gzip_min_length 0;'),
  'nginx that is told to buffer': nginx('proxy_buffering on; gzip on;'),
  'Apache mod_proxy': apache(''),
  'Apache mod_proxy and mod_deflate': apache('SetOutputFilter DEFLATE'),
  HAProxy: haproxy(''),
  'HAProxy that compresses': haproxy('    compression algo gzip\n    compression type text/event-stream application/json\n'),
};

/** Those that compress a stream although its head has `no-transform`. */
const COMPRESSING = ['nginx that compresses all', 'Apache mod_proxy and mod_deflate'];

/** Runs a story through a proxy before a server. */
async function through(make, kind, story) {
  const folder = await fs.mkdtemp(`${os.tmpdir()}/novcomet-proxy.`);
  await fs.chmod(folder, 0o755);
  const server = await Server.start(kind, {NOVCOMET_MAX_WAITERS_PER_ADDRESS: 0});
  const port = await freePort(), [command, ...args] = await make({folder, port, server});
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', command, ...args], {stdio: 'ignore'});
  const ended = once(child, 'exit'), url = `http://127.0.0.1:${port}`;
  try {
    await until(() => fetch(`${url}/client.html`).then(answer => answer.ok, () => false), 'the proxy answers');
    await story(`${url}/comet.cgi`, server);
  } finally {
    child.kill('SIGTERM');
    await ended;
    await server.close();
    await fs.rm(folder, {recursive: true, force: true});
  }
}

async function publish(url, text, more) {
  const answer = await fetch(`${url}?publish=a`, {method: 'POST', body: text, headers: {'Content-Type': 'text/plain'}, ...more});
  assert.equal(answer.status, 200, await answer.text());
}

/** Each message arrives before the next is published. */
async function streams(url, encoding) {
  const leave = new AbortController();
  const {body, headers} = await fetch(`${url}?subscribed[a]=0&stream=1&named=0`, {signal: leave.signal});
  assert.equal(headers.get('Content-Encoding'), encoding);
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  const hears = async part => {
    while (!text.includes(part)) text += (await reader.read()).value ?? assert.fail(`the stream ended: ${text.slice(-99)}`);
  };
  await hears('id: ');
  for (const message of ['one', 'two 🎉', 'x'.repeat(60_000), 'end']) {
    await publish(url, message);
    await hears(`data: ${message}\n`);
  }
  return leave;
}

async function polls(url, server) {
  const slots = await server.slots();
  const poll = fetch(`${url}?subscribed[a]=0`).then(answer => answer.json());
  await until(async () => await server.slots() > slots, 'the poll waits');
  await publish(url, 'to a poll');
  assert.deepEqual((await poll).m.a.map(({data}) => data), ['to a poll']);
}

/** Without a length. */
async function uploads(url) {
  const parts = new ReadableStream({
    start(to) {
      for (const part of ['in ', 'parts']) to.enqueue(new TextEncoder().encode(part));
      to.close();
    },
  });
  await publish(url, parts, {duplex: 'half'});
  const {m} = await (await fetch(`${url}?subscribed[a]=latest`)).json();
  assert.equal(m.a[0].data, 'in parts');
}

describe('a proxy', {concurrency: 4}, () => {
  for (const [name, make] of Object.entries(PROXIES)) {
    for (const kind of ['apache', 'lighttpd']) {
      it(`${name} before ${kind}`, () => through(make, kind, async (url, server) => {
        const leave = await streams(url, COMPRESSING.includes(name) ? 'gzip' : null);
        await polls(url, server);
        await uploads(url);
        leave.abort();
        // Its heartbeats are close to each other at first, and the proxy notices one of them.
        await until(async () => await server.slots() === 0, 'the server knows that the client has left');
      }));
    }
  }
});
