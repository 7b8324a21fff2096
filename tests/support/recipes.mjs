// The recipes of docs/recipes.md.
import {readFileSync} from 'node:fs';

const text = readFileSync(new URL('../../docs/recipes.md', import.meta.url), 'utf8');

/** The indented block after each line `<!-- test: NAME -->`. */
export const recipes = new Map([...text.matchAll(/^<!-- test: (\S+) -->\n\n((?: {4}.*\n|\n)+)/gm)]
  .map(([, name, block]) => [name, block.replace(/^ {4}/gm, '').trimEnd() + '\n']));

/** A recipe, in which the site is at `url`. */
export function recipe(name, url = '') {
  if (!recipes.has(name)) throw new Error(`there is no recipe ${name}`);
  return recipes.get(name).replaceAll(/https?:\/\/(localhost|www\.example)\//g, `${url}/`);
}

/** A page of the section "Pages", with the lines that are left out there. */
export const pageOf = name => recipe('head') + recipe(name);
