// Pages with the minified client, and pages that import the npm package, built by vite and by webpack.
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import {after, afterEach, before, it} from 'node:test';
import {createServer} from 'vite';
import {Project} from '../support/package.mjs';
import {recipe} from '../support/recipes.mjs';
import {Server, freePort, launch, open, until} from './support.mjs';

const PAGE = `
  import NovComet, {Client} from 'novcomet';
  if (NovComet.Client !== Client) throw new Error('another client');
  const output = document.body.appendChild(document.createElement('output'));
  NovComet.init('/comet.cgi').subscribe('news', (k, event) => { output.append(event.data); }).run();`;
const HTML = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><body><script type="module" src="/page.js"></script>';
let project, server, browser, devtools, context;

before(async () => {
  project = await Project.create();
  await project.write('page.js', PAGE);
  await project.write('index.html', HTML);
  [server, browser] = await Promise.all([Server.start(), launch()]);
  devtools = await browser.newBrowserCDPSession();
  context = await browser.newContext();
});

afterEach(() => server.empty());

after(async () => {
  await browser?.close();
  await server?.close();
  await project?.remove();
});

/** The SharedWorkers of the browser. */
async function workers() {
  const {targetInfos} = await devtools.send('Target.getTargets', {filter: [{type: 'shared_worker'}]});
  return targetInfos.map(({url}) => url);
}

async function listens(url) {
  const page = await open(context, url);
  await page.waitForFunction(() => globalThis.NovComet?.state === 'waiting');
  return page;
}

/** Two pages at this URL share the worker of the package, and hear a message, without a mistake. */
async function hear(url, worker) {
  const pages = [await listens(url), await listens(url)];
  await until(async () => (await workers()).some(url => worker.test(url)), `a worker at ${worker}`);
  await server.publish('news', 'It works.');
  for (const page of pages) {
    await page.waitForFunction(() => document.querySelector('output')?.textContent === 'It works.');
    assert.deepEqual(page.mistakes, []);
    await page.close();
  }
}

it('minified client is the worker of its pages', async () => {
  await server.serve('minified.html', `<!doctype html><body>
    <script src="/novcomet/NovComet.min.js"></script>
    <script>${PAGE.replace(/^ *(import|if) .*$/gm, '')}</script>`);
  await hear(`${server.url}/minified.html`, /\/novcomet\/NovComet\.min\.js$/);
});

it('pages built by vite hear a message', async () => {
  await fs.cp(await project.vite('vite'), `${server.root}/www/vite`, {recursive: true});
  await hear(`${server.url}/vite/`, /\/vite\/assets\/NovComet-[\w-]+\.js$/);
});

it('pages built by webpack hear a message', async () => {
  await fs.cp(await project.webpack('webpack'), `${server.root}/www/webpack`, {recursive: true});
  await server.serve('webpack/index.html', HTML.replace('type="module" src="/page.js"', 'src="main.js"'));
  await hear(`${server.url}/webpack/`, /\/webpack\/[0-9a-f]+\.js$/);
});

it('pages of the development server of vite hear a message', async () => {
  await project.write('vite.config.js', recipe('vite'));
  const vite = await createServer({
    root: project.root, logLevel: 'error',
    server: {host: '127.0.0.1', port: await freePort(), strictPort: true, proxy: {'/comet.cgi': server.url}},
  });
  try {
    await vite.listen();
    await hear(vite.resolvedUrls.local[0], /\/node_modules\/novcomet\/htdocs\/NovComet\.js$/);
  } finally {
    await vite.close();
  }
});
