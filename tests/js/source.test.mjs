// The house rules for the client: short functions and plain English.
import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {it} from 'node:test';
import ts from 'typescript';

const LONGEST = 40;     // lines
const read = name => readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8');

/** Every function of a script, as [lines, its first line]. */
const functions = text => {
  const file = ts.createSourceFile('', text, ts.ScriptTarget.Latest, true), found = [];
  const line = position => file.getLineAndCharacterOfPosition(position).line;
  const visit = node => {
    if (ts.isFunctionLike(node) && node.body) {
      found.push([line(node.end) - line(node.getStart()) + 1, node.getText().split('\n')[0]]);
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return found;
};

it(`functions have at most ${LONGEST} lines`, () => {
  const found = functions(read('htdocs/NovComet.js'));
  assert.ok(found.length > 50, `only ${found.length} functions were found`);
  assert.deepEqual(found.filter(([lines]) => lines > LONGEST), []);
});

/** Clauses without a noun as their subject. */
const DIALECT = [
  /(^|[.;:(|] ?|\*\*|\b(to|for|by|of|than|from|with|so that) )[Ww]ho(ever)? [a-z]/,
  /\b(none|parts?|one) of ours\b|one's own|, for (the|a|it|to|there|by|in) |^[Ww]hat (is|was|has|comes) /,
];
const dialect = text => text.split(/\n|\s\/\/ /).map(line => line.replace(/^\s*(\/\/|\/?\*+!?|<!--)?\s*/, ''))
  .filter(line => DIALECT.some(clause => clause.test(line)));

it('the text has no dialect', () => {
  assert.deepEqual(dialect(' * Who waits\n/** What is new */\n// a poll, for the server stops\nf(); // who waits'), [
    'Who waits', 'What is new */', 'a poll, for the server stops', 'who waits',
  ]);
  const names = ['NovComet.js', 'NovComet.mjs', 'NovComet.cjs', 'NovComet.d.ts', 'NovComet.d.mts', 'NovComet.d.cts'];
  for (const name of [...names, 'index.html', 'demo.css', 'demo.js', 'qr.js']) {
    assert.deepEqual(dialect(read(`htdocs/${name}`)), [], name);
  }
});
