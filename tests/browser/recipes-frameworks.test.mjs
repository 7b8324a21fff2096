// The components of docs/recipes.md, built by vite with the npm package.
import {svelte} from '@sveltejs/vite-plugin-svelte';
import vue from '@vitejs/plugin-vue';
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import {after, afterEach, before, it} from 'node:test';
import {Project} from '../support/package.mjs';
import {recipe} from '../support/recipes.mjs';
import {Server, launch, open} from './support.mjs';

/** Each script shows the component, and defines `remove`. */
const frameworks = {
  react: {file: 'News.jsx', script: `
    import {createElement} from 'react';
    import {createRoot} from 'react-dom/client';
    import News from './News.jsx';
    const root = createRoot(app);
    root.render(createElement(News));
    window.remove = () => root.unmount();`},
  vue: {file: 'News.vue', script: `
    import {createApp} from 'vue';
    import News from './News.vue';
    const shown = createApp(News);
    shown.mount(app);
    window.remove = () => shown.unmount();`},
  svelte: {file: 'News.svelte', script: `
    import {mount, unmount} from 'svelte';
    import News from './News.svelte';
    const shown = mount(News, {target: app});
    window.remove = () => unmount(shown);`},
};
let project, server, browser;

before(async () => {
  project = await Project.create('react', 'react-dom', 'vue', 'svelte');
  await project.write('index.html', '<!doctype html><div id="app"></div><script type="module" src="/page.js"></script>');
  [server, browser] = await Promise.all([Server.start(), launch()]);
});

afterEach(() => server.empty());

after(async () => {
  await browser?.close();
  await server?.close();
  await project?.remove();
});

async function build(name, {file, script}) {
  await project.write(file, recipe(name));
  await project.write('page.js', script);
  const built = await project.vite(name, {plugins: [vue(), svelte({configFile: false})], esbuild: {jsx: 'automatic'}});
  await fs.cp(built, `${server.root}/www/${name}`, {recursive: true});
}

for (const [name, framework] of Object.entries(frameworks)) {
  it(`${name} shows the newest message, and ends with its component`, async () => {
    const shows = text => page.waitForFunction(text => app.textContent === text, text);
    await build(name, framework);
    const page = await open(browser, `${server.url}/${name}/`);
    await shows('Nothing yet.');
    await page.waitForFunction(() => NovComet.state === 'waiting');
    await server.publish('news', 'It works.');
    await shows('It works.');
    await page.reload();
    await shows('It works.');
    await page.evaluate(() => remove());
    await page.waitForFunction(() => NovComet.state === 'stopped');
    assert.deepEqual(page.mistakes, []);
  });
}
