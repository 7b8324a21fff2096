// The npm package, as `npm pack` makes it and as a project installs it.
import {execFile} from 'node:child_process';
import fs from 'node:fs/promises';
import os from 'node:os';
import {fileURLToPath} from 'node:url';
import {promisify} from 'node:util';
import {build} from 'vite';
import webpack from 'webpack';

export const SOURCE = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');
export const run = promisify(execFile);

/** Packs the client into a folder. Returns the names of the packed files and the path of the package. */
export async function pack(folder) {
  const {stdout} = await run('npm', ['pack', '--json', '--pack-destination', folder], {cwd: SOURCE});
  const [{filename, files}] = JSON.parse(stdout);
  return {file: `${folder}/${filename}`, names: files.map(({path}) => path).sort()};
}

/** A project that has installed the package. It uses further packages of the tests by links. */
export class Project {
  static async create(...links) {
    const project = new Project();
    project.root = await fs.mkdtemp(`${os.tmpdir()}/novcomet-project.`);
    await project.write('package.json', '{"private": true}');
    const {file, names} = await pack(project.root);
    project.names = names;
    await project.run('npm', 'install', '--offline', '--no-audit', '--no-fund', file);
    for (const name of links) {
      await fs.symlink(`${SOURCE}/tests/node_modules/${name}`, `${project.root}/node_modules/${name}`);
    }
    return project;
  }

  get installed() { return `${this.root}/node_modules/novcomet`; }

  write(name, content) { return fs.writeFile(`${this.root}/${name}`, content); }

  /** tsc writes its errors to its output. */
  run(program, ...args) {
    return run(program, args, {cwd: this.root}).catch(error => {
      throw Object.assign(error, {message: `${error.message}${error.stdout}`});
    });
  }

  node(...args) { return this.run(process.execPath, ...args); }

  remove() { return fs.rm(this.root, {recursive: true, force: true}); }

  /** Builds `index.html`, with base `/${out}/`. */
  async vite(out, options) {
    await build({
      root: this.root, base: `/${out}/`, configFile: false, logLevel: 'error', build: {outDir: out}, ...options,
    });
    return `${this.root}/${out}`;
  }

  /** Builds `page.js`. */
  async webpack(out) {
    const compiler = webpack({
      context: this.root, entry: './page.js', mode: 'production',
      output: {path: `${this.root}/${out}`, publicPath: `/${out}/`},
    });
    const stats = await promisify(compiler.run.bind(compiler))();
    await promisify(compiler.close.bind(compiler))();
    if (stats.hasErrors() || stats.hasWarnings()) throw new Error(stats.toString());
    return `${this.root}/${out}`;
  }
}
