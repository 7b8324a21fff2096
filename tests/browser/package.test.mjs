// A page that imports the npm package, built by vite and by webpack, and served.
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import {after, afterEach, before, it} from 'node:test';
import {createServer} from 'vite';
import {Project} from '../support/package.mjs';
import {Server, launch, open} from './support.mjs';

const PAGE = `
  import NovComet, {Client} from 'novcomet';
  if (NovComet.Client !== Client) throw new Error('another client');
  NovComet.init('/comet.cgi').subscribe('news', (k, event) => { document.body.append(event.data); }).run();`;
const HTML = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><body><script type="module" src="/page.js"></script>';
let project, server, browser, context;

before(async () => {
  project = await Project.create();
  await project.write('page.js', PAGE);
  await project.write('index.html', HTML);
  [server, browser] = await Promise.all([Server.start(), launch()]);
  context = await browser.newContext();
});

afterEach(() => server.empty());

after(async () => {
  await browser?.close();
  await server?.close();
  await project?.remove();
});

/** The page at this URL hears a message, without a mistake. */
async function hears(url) {
  const page = await open(context, url);
  await page.waitForFunction(() => globalThis.NovComet?.state === 'waiting');
  await server.publish('news', 'It works.');
  await page.waitForFunction(() => document.body.textContent.includes('It works.'));
  assert.deepEqual(page.mistakes, []);
  await page.close();
}

it('page built by vite hears a message', async () => {
  await fs.cp(await project.vite('vite'), `${server.root}/www/vite`, {recursive: true});
  await hears(`${server.url}/vite/`);
});

it('page built by webpack hears a message', async () => {
  await fs.cp(await project.webpack('webpack'), `${server.root}/www/webpack`, {recursive: true});
  await server.serve('webpack/index.html', HTML.replace('type="module" src="/page.js"', 'src="main.js"'));
  await hears(`${server.url}/webpack/`);
});

it('page of the development server of vite hears a message', async () => {
  const vite = await createServer({
    root: project.root, configFile: false, logLevel: 'error',
    server: {host: '127.0.0.1', port: 0, proxy: {'/comet.cgi': server.url}},
  });
  try {
    await vite.listen();
    await hears(vite.resolvedUrls.local[0]);
  } finally {
    await vite.close();
  }
});
