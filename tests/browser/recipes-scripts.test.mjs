// The scripts of docs/recipes.md, in their languages.
import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs/promises';
import os from 'node:os';
import {after, afterEach, before, it} from 'node:test';
import {Project} from '../support/package.mjs';
import {recipe} from '../support/recipes.mjs';
import {Server, run, until} from './support.mjs';

let server, folder;

before(async () => {
  server = await Server.start();
  folder = await fs.mkdtemp(`${os.tmpdir()}/novcomet-scripts.`);
});

afterEach(() => server.empty());

after(async () => {
  await server?.close();
  await fs.rm(folder, {recursive: true, force: true});
});

/** The kept messages of a topic. */
async function kept(id) {
  const answer = await fetch(`${server.url}/comet.cgi?subscribed[${id}]=earliest&wait=0`);
  return ((await answer.json()).m?.[id] ?? []).map(({data}) => data);
}

const shell = (text, env) => run('sh', ['-ec', text], {env: {...process.env, ...env}});
/** The command of a line of a crontab. */
const command = name => recipe(name, server.url).replace(/^(\S+ ){5}/, '');

it('shell publishes a text and an output', async () => {
  await shell(recipe('shell', server.url));
  assert.deepEqual(await kept('news'), ['Hello from a shell']);
  const [disk] = await kept('disk');
  assert.match(disk, /^Filesystem .*\n.* \/\n$/);
});

it('cron publishes the load', async () => {
  await shell(command('cron'));
  assert.match((await kept('load'))[0], /^\d+\.\d+ \d+\.\d+ /);
});

it('cron publishes only the failure of a job', async () => {
  const job = async status => {
    await fs.writeFile(`${folder}/nightly-backup`, `#!/bin/sh\nexit ${status}\n`, {mode: 0o755});
    await shell(command('cron-failure'), {PATH: `${folder}:${process.env.PATH}`});
    return kept('alarm');
  };
  assert.deepEqual(await job(0), []);
  assert.deepEqual(await job(1), ['backup']);
});

for (const [name, program, message] of [
  ['php', '/usr/bin/php', 'Hello from PHP'],
  ['python', '/usr/bin/python3', 'Hello from Python'],
  ['ruby', '/usr/bin/ruby', 'Hello from Ruby'],
  ['node', process.execPath, 'Hello from Node.js'],
]) {
  it(`${name} publishes`, async () => {
    const file = `${folder}/${name}.mjs`;
    await fs.writeFile(file, recipe(name, server.url));
    const {stdout, stderr} = await run(program, [file]);
    assert.deepEqual([stdout, stderr], ['', '']);
    assert.deepEqual(await kept('news'), [message]);
  });
}

it('client in Node.js publishes and listens', async () => {
  const project = await Project.create();
  await project.write('news.mjs', recipe('node-client', server.url));
  const child = spawn(process.execPath, ['news.mjs'], {cwd: project.root, stdio: ['ignore', 'pipe', 'inherit']});
  const ended = once(child, 'exit');
  let output = '';
  child.stdout.on('data', data => { output += data; });
  try {
    await until(() => output.includes('{"from":"Node.js"}\n'), 'it hears itself');
    await server.publish('news', 'Hello');
    await until(() => output.endsWith('}\nHello\n'), 'it hears others');
  } finally {
    child.kill();
    await ended;
    await project.remove();
  }
});
