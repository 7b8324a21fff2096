// The npm package: its files, its entry points, and its types.
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import {createRequire} from 'node:module';
import {after, before, it} from 'node:test';
import {Project, SOURCE, run} from '../support/package.mjs';

const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
const read = name => fs.readFile(`${SOURCE}/${name}`, 'utf8');
let project;

before(async () => {
  project = await Project.create();
});

after(() => project?.remove());

it('package has the files of the client only', () => {
  const client = ['cjs', 'd.cts', 'd.mts', 'd.ts', 'js', 'min.js', 'mjs'].map(kind => `htdocs/NovComet.${kind}`);
  assert.deepEqual(project.names, ['LICENSE-APACHE', 'LICENSE-MIT', 'README.md', ...client, 'package.json']);
});

it('package has the version of the executable', async () => {
  const [, version] = (await read('Cargo.toml')).match(/^version = "(.*)"/m);
  assert.equal(JSON.parse(await read('package.json')).version, version);
});

it('minified file is made of the present script', async () => {
  const made = `${project.root}/NovComet.min.js`;
  await run('make', ['-C', SOURCE, '-o', 'tests/node_modules', 'minify', `MINIFIED=${made}`]);
  assert.ok(await fs.readFile(made, 'utf8') === await read('htdocs/NovComet.min.js'), 'run make minify');
});

it('minified file is the same client', async () => {
  const members = async file => {
    const {stdout} = await project.node('-p', `require('${file}'); [...Object.keys(NovComet), typeof NovComet.Client].join()`);
    return stdout;
  };
  assert.equal(await members('novcomet/NovComet.min.js'), await members('novcomet/NovComet.js'));
});

it('Node.js imports and requires the one client', async () => {
  await project.write('both.mjs', `
    import assert from 'node:assert/strict';
    import {createRequire} from 'node:module';
    import NovComet, {Client} from 'novcomet';
    const required = createRequire(import.meta.url)('novcomet');
    assert.equal(required, NovComet);
    assert.equal(required.Client, Client);
    assert.equal(globalThis.NovComet, NovComet);
    assert.equal(new Client('/comet.cgi').state, 'stopped');`);
  await project.node('both.mjs');
});

const strict = ['--strict', '--target', 'es2022', '--lib', 'es2022,dom'];
const resolutions = {
  bundler: [['page.ts'], '--module', 'esnext', '--moduleResolution', 'bundler'],
  node16: [['page.mts', 'page.cts'], '--module', 'node16'],
  nodenext: [['page.mts', 'page.cts'], '--module', 'nodenext'],
};
for (const [name, [pages, ...options]] of Object.entries(resolutions)) {
  it(`TypeScript finds the types by ${name}`, async () => {
    const page = (await read('tests/js/types.mts')).replace('../../htdocs/NovComet.mjs', 'novcomet');
    for (const file of pages) await project.write(file, page);
    await project.node(tsc, ...strict, '--noEmit', ...options, ...pages);
  });
}

it('TypeScript compiles an import to a require that works', async () => {
  await project.write('required.cts', `
    import NovComet, {Client} from 'novcomet';
    if (NovComet !== globalThis.NovComet || NovComet.Client !== Client) throw new Error('another client');`);
  await project.node(tsc, ...strict, '--module', 'node16', 'required.cts');
  await project.node('required.cjs');
});
