// Every recipe of docs/recipes.md is tested.
import assert from 'node:assert/strict';
import {readFileSync, readdirSync} from 'node:fs';
import {it} from 'node:test';
import {recipes} from '../support/recipes.mjs';

const read = name => readFileSync(new URL(name, import.meta.url), 'utf8');

it('each recipe has a test', () => {
  const tests = readdirSync(new URL('../browser', import.meta.url)).filter(name => name.endsWith('.test.mjs'))
    .map(name => read(`../browser/${name}`)).join('');
  const untested = [...recipes.keys()].filter(name => !tests.includes(`'${name}'`));
  assert.ok(recipes.size > 30, `only ${recipes.size} recipes were found`);
  assert.deepEqual(untested, []);
});

it('each block of code is a recipe, but for the installation of the package', () => {
  const {version} = JSON.parse(read('../../package.json'));
  const rest = read('../../docs/recipes.md').replace(/<!-- test: \S+ -->\n\n(?: {4}.*\n|\n)+/g, '');
  assert.deepEqual(rest.match(/^ {4}.*/gm), [`    npm install /path/to/novcomet-${version}.tgz`]);
});
