import assert from 'node:assert/strict';
import {execFile} from 'node:child_process';
import {readFile} from 'node:fs/promises';
import {createRequire} from 'node:module';
import {it} from 'node:test';
import {fileURLToPath} from 'node:url';
import {promisify} from 'node:util';
import NovComet from '../../htdocs/NovComet.mjs';

const run = promisify(execFile);
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');

it('a TypeScript page compiles', async () => {
  const page = fileURLToPath(new URL('types.mts', import.meta.url));
  const options = '--noEmit --strict --target es2022 --module nodenext --lib es2022,dom'.split(' ');
  await assert.doesNotReject(run(process.execPath, [tsc, ...options, page]));
});

it('types list exactly the public members', async () => {
  const types = await readFile(new URL('../../htdocs/NovComet.d.ts', import.meta.url), 'utf8');
  const [, body] = types.match(/export class Client \{\n(.*?)\n\}/s);
  const named = [...body.matchAll(/^ {2}(?:readonly )?(\w+):/gm)].map(([, name]) => name);
  const there = Object.keys(new NovComet.Client()).filter(name => name !== '_baseurl');
  assert.deepEqual(named.sort(), there.sort());
});
