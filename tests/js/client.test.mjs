import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {describe, it} from 'node:test';
import {gzipSync} from 'node:zlib';
import NovComet, {Client} from '../../htdocs/NovComet.mjs';
import {World, settle} from './world.mjs';

const source = new URL('../../htdocs/NovComet.js', import.meta.url);

describe('the file', () => {
  it('is under 7.1 kB, minified and gzipped', async () => {
    const text = readFileSync(source, 'utf8'), size = code => gzipSync(code, {level: 9}).length;
    const {minify} = await import('terser').catch(() => ({}));
    const options = {ecma: 2020, compress: {passes: 3, ecma: 2020}, mangle: true, format: {comments: /^!/}};
    const bytes = minify ? size((await minify(text, options)).code) : size(text);
    assert.ok(bytes < (minify ? 7100 : 12e3), `${bytes} bytes`);
  });

  it('global and module are one client', async () => {
    const before = globalThis.NovComet;
    await import('../../htdocs/NovComet.js?again');
    assert.equal(globalThis.NovComet, before);
    assert.equal(NovComet, before);
    assert.equal(NovComet.Client, Client);
    assert.ok(NovComet instanceof Client);
  });

  it('adds no other global', () => {
    const run = new Function('globalThis', readFileSync(source, 'utf8'));
    const root = {};
    run(root);
    assert.deepEqual(Object.keys(root), ['NovComet']);
  });
});

describe('the interface of 2011', () => {
  it('every method exists', () => {
    const {client} = new World();
    assert.equal(client.subscribe('a', () => {}).subscribe('b', () => {}), client);
    assert.equal(client.sleepTime, 0);
    assert.equal(client.init('other.php'), client);
    assert.equal(client.run(), client);
  });

  it('default URL is comet.php', async () => {
    const world = new World();
    for (const url of [undefined, undefined, '/cgi-bin/comet.cgi']) {
      const answer = world.client.init(url).publish('x');
      await settle();
      await world.last.answer({s: 1, k: {x: 5.5}});
      await answer;
    }
    assert.deepEqual(world.requests.map(({url}) => url), ['comet.php', 'comet.php', '/cgi-bin/comet.cgi']);
  });

  it('methods are bound', async () => {
    const world = new World();
    const {subscribe, run} = world.client;
    subscribe('a', () => {});
    ['ready'].forEach(run);
    await settle();
    assert.equal(world.requests.length, 1);
  });

  it('callback gets k and the event', async () => {
    const world = new World(), heard = [];
    world.hear = (...args) => heard.push(args);
    const poll = await world.wait('a', 'b');
    await poll.answer({s: 1, k: {a: 6.000001, b: 7.5}});
    const k = {a: 6.000001, b: 7.5};
    assert.deepEqual(heard.map(([k, event]) => [k, {...event}]), [
      [k, {id: 'a', cursor: 6.000001, data: undefined, gap: false}],
      [k, {id: 'b', cursor: 7.5, data: undefined, gap: false}],
    ]);
  });

  it('every request has _args', async () => {
    const world = new World('comet.php?lang=en');
    world.client._args = 'a=b&c=d';
    await world.wait('x');
    world.client.publish('x').catch(() => {});
    await settle();
    for (const {url} of world.requests) assert.match(url, /^comet\.php\?lang=en&a=b&c=d(&subscribed\[x\]=|$)/);
  });

  it('sleepTime separates two polls', async () => {
    const world = new World();
    world.client.sleepTime = 1000;
    const poll = await world.wait('x');
    await poll.answer({s: 1, k: {x: 6.5}});
    await world.pass(1099);
    assert.equal(world.last, poll);
    await world.pass(1);
    assert.notEqual(world.last, poll);
  });

  it('second subscribe replaces only the callback', async () => {
    const world = new World(), heard = [];
    const poll = await world.wait('x');
    world.client.subscribe('x', (k, {id}) => heard.push(id));
    await settle();
    assert.ok(poll.open);
    await poll.answer({s: 1, k: {x: 6.5}});
    assert.deepEqual(heard, ['x']);
  });
});

describe('the cursor', () => {
  it('first request gets cursors from server', async () => {
    const world = new World();
    world.client.subscribe('a', () => {}).subscribe('b', () => {}).run();
    await settle();
    assert.equal(world.last.url, 'comet.php?subscribed[a]=0&subscribed[b]=0&wait=0');
    await world.last.answer('{"s":0,"k":{"a":1795415403.163846,"b":0.100000}}');
    assert.equal(world.last.query, 'subscribed[a]=1795415403.163846&subscribed[b]=0.1&wait=60');
  });

  it('cursor returns to server unchanged', async () => {
    const world = new World();
    const poll = await world.wait('a');
    await poll.answer('{"s":1,"k":{"a":1795415403.000001}}');
    await world.pass(200);
    assert.equal(world.last.query, 'subscribed[a]=1795415403.000001&wait=60');
  });

  it('subscribe accepts a cursor', async () => {
    const world = new World();
    world.client.subscribe('a', () => {}, 1795415403.163846).run();
    await settle();
    assert.equal(world.last.query, 'subscribed[a]=1795415403.163846&wait=0');
  });

  it('topic without cursor is requested again', async () => {
    const world = new World(), heard = [];
    const hear = (k, {id}) => heard.push(id);
    world.client.subscribe('a', hear).subscribe('b', hear).run();
    await settle();
    await world.last.answer({s: 1, k: {a: 6.5}});
    assert.equal(world.last.query, 'subscribed[b]=0&wait=0');
    assert.deepEqual(heard, ['a']);
  });

  it('server without cursors causes back-off', async () => {
    const world = new World();
    world.onrequest = request => request.answer({s: 0, k: {}});
    world.client.subscribe('a', () => {}).run();
    await world.pass(60e3);
    assert.ok(world.requests.length <= 8, `${world.requests.length} requests`);
  });

  it('event with the same cursor is delivered', async () => {
    const world = new World(), heard = [];
    world.hear = (k, {cursor}) => heard.push(cursor);
    const poll = await world.wait('a');
    await world.pass(20e3);
    await poll.answer({s: 1, k: {a: 5.5}});
    await world.pass(200);
    assert.deepEqual(heard, [5.5]);
    assert.equal(world.last.query, 'subscribed[a]=5.5&wait=60');
  });

  it('topic missing from answer keeps its cursor', async () => {
    const world = new World();
    const poll = await world.wait('a', 'b');
    await world.pass(20e3);
    await poll.answer({s: 0, k: {a: 5.5}});
    await world.pass(200);
    assert.equal(world.last.query, 'subscribed[a]=5.5&subscribed[b]=5.5&wait=60');
  });
});

describe('ids', () => {
  const strange = ['__proto__', 'constructor', 'a][b', 'a&b=c', 'ü €', '%41', '', '1', '../x', 'a+b', '"<\\'];

  it('any string is an id', async () => {
    const world = new World(), heard = [];
    for (const id of strange) world.client.subscribe(id, (k, event) => heard.push(event.id));
    world.client.run();
    await settle();
    const asked = world.last.query.split('&').slice(0, -1)
      .map(part => decodeURIComponent(part.slice('subscribed['.length, -']=0'.length)));
    assert.deepEqual(asked, strange);
    const k = cursor => `{${strange.map(id => `${JSON.stringify(id)}:${cursor}`)}}`;
    await world.last.answer(`{"s":0,"k":${k(5.5)}}`);
    assert.equal(world.last.query.split('=5.5').length - 1, strange.length);
    await world.last.answer(`{"s":1,"k":${k(6.5)}}`);
    assert.deepEqual(heard.sort(), [...strange].sort());
  });

  it('brackets in an id are encoded', async () => {
    const world = new World();
    world.client.subscribe('a][b', () => {}).run();
    await settle();
    assert.equal(world.last.query, 'subscribed[a%5D%5Bb]=0&wait=0');
  });

  it('invalid Unicode makes subscribe throw', () => {
    const {client} = new World();
    assert.throws(() => client.subscribe('\ud800', () => {}), URIError);
  });

  it('unknown ids are ignored', async () => {
    const world = new World();
    const poll = await world.wait('a');
    await poll.answer('{"s":1,"k":{"other":9.5,"__proto__":9.5,"a":6.5}}');
    await world.pass(200);
    assert.equal(world.last.query, 'subscribed[a]=6.5&wait=60');
    assert.deepEqual(world.errors, []);
  });
});

describe('subscribing', () => {
  it('subscribe during a poll restarts it', async () => {
    const world = new World();
    const poll = await world.wait('a');
    world.client.subscribe('b', () => {}).subscribe('c', () => {});
    await settle();
    assert.ok(poll.init.signal.aborted);
    assert.equal(world.last.query, 'subscribed[b]=0&subscribed[c]=0&wait=0');
    await world.last.answer({s: 0, k: {b: 0.1, c: 7.5}});
    assert.equal(world.last.query, 'subscribed[a]=5.5&subscribed[b]=0.1&subscribed[c]=7.5&wait=60');
    assert.deepEqual(world.errors, []);
    assert.deepEqual(world.states, ['connecting', 'waiting']);
  });

  it('subscribe after run starts the client', async () => {
    const world = new World();
    world.client.run();
    await settle();
    assert.equal(world.requests.length, 0);
    assert.equal(world.client.state, 'stopped');
    world.client.subscribe('a', () => {}).subscribe('b', () => {});
    await settle();
    assert.equal(world.last.query, 'subscribed[a]=0&subscribed[b]=0&wait=0');
    assert.equal(world.client.state, 'connecting');
  });

  it('subscribe lets an immediate request end', async () => {
    const world = new World();
    world.client.subscribe('a', () => {}).run();
    await settle();
    world.client.subscribe('b', () => {});
    await settle();
    assert.equal(world.requests.length, 1);
    await world.last.answer({s: 0, k: {a: 5.5}});
    assert.equal(world.last.query, 'subscribed[b]=0&wait=0');
  });

  it('subscribe does not shorten a back-off', async () => {
    const world = new World();
    await (await world.wait('a')).fail();
    world.client.subscribe('b', () => {});
    await world.pass(999);
    assert.equal(world.requests.length, 2);
    await world.pass(1);
    assert.equal(world.requests.length, 3);
  });

  it('unsubscribing the last topic stops polling', async () => {
    const world = new World();
    await world.wait('a', 'b');
    world.client.unsubscribe('a').unsubscribe('never');
    await settle();
    assert.equal(world.last.query, 'subscribed[b]=5.5&wait=60');
    const poll = world.last;
    world.client.unsubscribe('b');
    await settle();
    assert.ok(poll.init.signal.aborted);
    assert.equal(world.client.state, 'stopped');
    assert.equal(world.last, poll);
  });
});

describe('stop and run', () => {
  it('run continues after a stop', async () => {
    const world = new World(), heard = [];
    world.hear = (k, {cursor}) => heard.push(cursor);
    const poll = await world.wait('a');
    world.client.stop();
    assert.equal(world.client.state, 'stopped');
    assert.ok(poll.init.signal.aborted);
    await world.pass(120e3);
    assert.equal(world.last, poll);
    world.client.run();
    await settle();
    assert.equal(world.last.query, 'subscribed[a]=5.5&wait=0');
    await world.last.answer({s: 1, k: {a: 6.5}});
    assert.deepEqual(heard, [6.5]);
    assert.deepEqual(world.states, ['connecting', 'waiting', 'stopped', 'connecting', 'waiting']);
  });

  it('repeated stop and run make one loop', async () => {
    const world = new World();
    await world.wait('a');
    world.client.stop().run().stop().run();
    await settle();
    await world.last.answer({s: 0, k: {a: 5.5}});
    await world.pass(1000);
    assert.equal(world.requests.filter(({open}) => open).length, 1);
    assert.equal(world.client.state, 'waiting');
  });

  it('second run does nothing', async () => {
    const world = new World();
    await world.wait('a');
    world.client.run().run();
    await settle();
    assert.equal(world.requests.length, 2);
  });

  it('stop in a callback delays later events', async () => {
    const world = new World(), heard = [];
    world.hear = (k, {id}) => {
      heard.push(id);
      world.client.stop();
    };
    await (await world.wait('a', 'b')).answer({s: 1, k: {a: 6.5, b: 6.5}});
    assert.deepEqual(heard, ['a']);
    await world.pass(1000);
    world.client.run();
    await settle();
    assert.equal(world.last.query, 'subscribed[a]=6.5&subscribed[b]=5.5&wait=0');
  });

  it("stop removes the window's listeners", async () => {
    const world = new World();
    await world.wait('a');
    world.client.stop();
    await world.pass(1000);
    await world.dispatch('online');
    await world.dispatch('pageshow', {persisted: true});
    assert.equal(world.requests.length, 2);
  });
});

describe('publishing', () => {
  it('publish is a POST with keepalive', async () => {
    const world = new World();
    const answer = world.client.publish('a&b=ü');
    await settle();
    const {url, init} = world.last;
    assert.equal(url, 'comet.php');
    assert.equal(init.method, 'POST');
    assert.equal(`${init.body}`, 'publish=a%26b%3D%C3%BC');
    assert.equal(init.keepalive, true);
    const stands = {s: 1, k: {'a&b=ü': 1795415403.163847}};
    await world.last.answer(stands);
    assert.deepEqual(await answer, stands);
  });

  it('message is sent as text', async () => {
    const world = new World();
    const bodies = [];
    for (const data of ['a=1&b=\n€\r', '', 0, false, null, undefined]) {
      world.client.publish('a', data);
      await settle();
      bodies.push(`${world.last.init.body}`);
      await world.last.answer({s: 1, k: {a: 6.5}});
    }
    assert.deepEqual(bodies, [
      'publish=a&data=a%3D1%26b%3D%0A%E2%82%AC%0D', 'publish=a&data=', 'publish=a&data=0',
      'publish=a&data=false', 'publish=a&data=null', 'publish=a',
    ]);
  });

  it('keepalive is limited to 64 KiB', async () => {
    const world = new World();
    for (const [length, keepalive] of [[50e3, true], [70e3, false], [10e3, true]]) {
      world.client.publish('a', 'x'.repeat(length));
      await settle();
      assert.equal(world.last.init.keepalive, keepalive);
      await world.last.answer({s: 1, k: {a: 6.5}});
    }
  });

  it("publish rejects with the server's reason", async () => {
    const world = new World();
    const answer = world.client.publish('a');
    await settle();
    await world.last.answer({title: 'Insufficient Storage', status: 507, detail: 'the event directory is full'},
      {status: 507, headers: {'Content-Type': 'application/problem+json'}});
    await assert.rejects(answer, {message: 'the event directory is full', status: 507});
    assert.equal(world.errors.length, 1);
  });

  it('publish without an answer rejects', async () => {
    const world = new World();
    const answer = world.client.publish('a');
    await world.pass(30e3);
    await assert.rejects(answer, {code: 'timeout'});
  });

  it('ignored promise causes no unhandled rejection', async t => {
    const seen = [], see = error => seen.push(error);
    process.on('unhandledRejection', see);
    t.after(() => process.off('unhandledRejection', see));
    const world = new World();
    world.client.publish('a');
    await settle();
    await world.last.fail();
    await settle();
    assert.deepEqual(seen, []);
    assert.equal(world.errors[0].code, 'network');
  });

  it('who asks for the subscribers of a topic', async () => {
    const world = new World();
    const answer = world.client.who('a&b=ü');
    await settle();
    assert.equal(world.last.query, 'who[a%26b%3D%C3%BC]=1');
    assert.equal(world.last.init.method, undefined);
    await world.last.answer({who: {'a&b=ü': {number: 2, names: ['x']}}});
    assert.deepEqual(await answer, {number: 2, names: ['x']});
    const refused = assert.rejects(world.client.who('a'), {code: 'forbidden', status: 403});
    await settle();
    await world.last.answer({status: 403, detail: 'no'}, {status: 403});
    await refused;
  });

  it('publish keeps an open poll', async () => {
    const world = new World();
    const poll = await world.wait('a');
    world.client.publish('a');
    await settle();
    await world.last.answer(true);
    assert.ok(poll.open);
  });
});

describe('failures', () => {
  const broken = {
    'no connection': request => request.fail(),
    'a 500': request => request.answer('', {status: 500}),
    'a 503 with a reason': request => request.answer({detail: 'no store'}, {status: 503}),
    'a proxy page, 502': request => request.answer('<h1>Bad Gateway</h1>', {status: 502}),
    'a proxy page, 200': request => request.answer('<h1>Please log in</h1>'),
    'a truncated answer': request => request.answer('{"s":1,"k":{"a":6.'),
    'an empty answer': request => request.answer(''),
    'null': request => request.answer('null'),
    'other JSON': request => request.answer({ok: true}),
  };

  for (const [name, happen] of Object.entries(broken)) {
    it(`${name}: retry has the same cursor`, async () => {
      const world = new World(), heard = [];
      world.hear = (k, {cursor}) => heard.push(cursor);
      await happen(await world.wait('a'));
      await world.pass(1000);
      assert.equal(world.last.query, 'subscribed[a]=5.5&wait=0');
      await happen(world.last);
      await world.pass(500);
      assert.equal(world.client.state, 'offline');
      assert.equal(world.errors.length, 1);
      await world.pass(1500);
      await world.last.answer({s: 1, k: {a: 6.5}});
      assert.deepEqual(heard, [6.5]);
      assert.equal(world.last.query, 'subscribed[a]=6.5&wait=60');
      assert.deepEqual(world.states, ['connecting', 'waiting', 'offline', 'waiting']);
    });

    it(`${name}: nothing is told if it is soon over`, async () => {
      const world = new World();
      await happen(await world.wait('a'));
      await world.pass(1000);
      await world.last.answer({s: 0, k: {a: 5.5}});
      await world.pass(5000);
      assert.deepEqual(world.errors, []);
      assert.deepEqual(world.states, ['connecting', 'waiting']);
    });
  }

  it('error has status and reason', async () => {
    const world = new World();
    world.client.subscribe('a', () => {}).run();
    await settle();
    await world.last.answer({title: 'Service Unavailable'}, {status: 503});
    assert.equal(world.errors[0].status, 503);
    assert.equal(world.errors[0].message, 'Service Unavailable');
    await world.pass(1000);
    await world.last.answer('<html>', {status: 502});
    assert.equal(world.errors[1].message, 'HTTP 502 from comet.php');
  });

  it('back-off grows from 1 to 30 s', async () => {
    const world = new World();
    world.onrequest = request => request.fail();
    world.client.subscribe('a', () => {}).run();
    await world.pass(200e3);
    const gaps = world.requests.slice(1).map(({at}, i) => at - world.requests[i].at);
    assert.deepEqual(gaps.slice(0, 8), [1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    world.luck = 0.1;
    const before = world.requests.length;
    await world.pass(45e3);
    assert.ok(world.requests.length - before >= 5);
  });

  it('immediate answer does not reset the back-off', async () => {
    const world = new World();
    world.onrequest = request => request.query.endsWith('wait=0')
      ? request.answer({s: 0, k: {a: 5.5}})
      : request.answer('', {status: 502});
    world.client.subscribe('a', () => {}).run();
    await world.pass(300e3);
    assert.ok(world.requests.length <= 34, `${world.requests.length} requests`);
  });

  it('held poll resets the back-off', async () => {
    const world = new World();
    for (let i = 0, poll = await world.wait('a'); i < 6; i++) {
      await world.pass(30e3);
      await poll.answer('', {status: 504});
      await world.pass(1000);
      await world.last.answer({s: 0, k: {a: 5.5}});
      poll = world.last;
    }
    assert.match(world.last.query, /wait=60$/);
  });

  for (const status of [400, 403, 404, 413]) {
    it(`status ${status} is retried slowly`, async () => {
      const world = new World();
      world.onrequest = request => request.answer('', {status});
      world.client.subscribe('a', () => {}).run();
      await world.pass(301e3);
      assert.equal(world.requests.length, 11);
      assert.equal(world.errors[0].status, status);
    });
  }

  for (const status of [408, 425, 429]) {
    it(`status ${status} is retried soon`, async () => {
      const world = new World();
      await (await world.wait('a')).answer('', {status});
      await world.pass(1000);
      assert.equal(world.requests.length, 3);
    });
  }

  it('error with Retry-After delays the retry', async () => {
    const world = new World();
    await (await world.wait('a')).answer('', {status: 503, headers: {'Retry-After': '20'}});
    await world.pass(20e3);
    assert.equal(world.requests.length, 2);
    await world.pass(1e3);
    assert.equal(world.requests.length, 3);
  });

  it('success with Retry-After delays the next request', async () => {
    const world = new World();
    await (await world.wait('a')).answer({s: 0, k: {a: 5.5}}, {headers: {'Retry-After': '7'}});
    await world.pass(7e3);
    assert.equal(world.requests.length, 2);
    assert.equal(world.client.state, 'queued');
    await world.pass(200);
    assert.equal(world.requests.length, 3);
    await world.pass(6e3);
    assert.equal(world.client.state, 'waiting');
  });

  for (const odd of ['Wed, 21 Oct 2026 07:28:00 GMT', '-5', 'x', '1e99']) {
    it(`invalid Retry-After is ignored: ${odd}`, async () => {
      const world = new World();
      await (await world.wait('a')).answer('', {status: 503, headers: {'Retry-After': odd}});
      await world.pass(3601e3);
      const gap = world.requests[2].at - world.requests[1].at;
      assert.ok(gap >= 1000 && gap <= 3601e3, `${gap} ms`);
    });
  }
});

describe('the rate of requests', () => {
  const flood = async (answer, ms) => {
    const world = new World();
    let cursor = 6;
    world.luck = 0;
    world.onrequest = request => request.answer(answer(++cursor + 0.5));
    world.client.subscribe('a', () => {}).run();
    await world.pass(ms);
    return world.requests.length;
  };

  it('constant events keep to the limit', async () => {
    const requests = await flood(cursor => ({s: 1, k: {a: cursor}}), 60e3);
    assert.ok(requests > 200 && requests <= 60 * 4 + 11, `${requests} requests`);
  });

  for (const [name, answer] of Object.entries({
    'no event comes': () => ({s: 0, k: {a: 5.5}}),
    'one event repeats': () => ({s: 1, k: {a: 5.5}}),
    'cursors move without events': cursor => ({s: 0, k: {a: cursor}}),
    'events have unknown topics': () => ({s: 1, k: {b: 5.5}}),
  })) {
    it(`limit holds when ${name}`, async () => {
      assert.ok(await flood(answer, 60e3) <= 60 * 4 + 11);
    });

    it(`back-off grows when ${name}`, async () => {
      const world = new World();
      let cursor = 6;
      world.onrequest = request => request.answer(answer(++cursor + 0.5));
      world.client.subscribe('a', () => {}).run();
      await world.pass(300e3);
      assert.ok(world.requests.length <= 18, `${world.requests.length} requests`);
    });
  }

  it('limit holds while the network flaps', async () => {
    const world = new World();
    world.luck = 0;
    world.onrequest = request => request.fail();
    world.client.subscribe('a', () => {}).run();
    for (let i = 0; i < 1000; i++) {
      await world.dispatch(i % 2 ? 'online' : 'offline');
      await world.pass(10);
    }
    assert.ok(world.requests.length <= 10 * 4 + 12, `${world.requests.length} requests`);
  });

  it('jitter spreads the next request', async () => {
    const world = new World();
    await (await world.wait('a')).answer({s: 1, k: {a: 6.5}});
    await world.pass(99);
    assert.equal(world.requests.length, 2);
    await world.pass(1);
    assert.equal(world.requests.length, 3);
  });

  it('clock set back does not stop requests', async () => {
    const world = new World();
    let cursor = 6;
    world.onrequest = request => request.answer({s: 1, k: {a: ++cursor + 0.5}});
    world.client.subscribe('a', () => {}).run();
    await world.pass(10e3);
    world.now -= 3600e3;
    for (const timer of world.timers.values()) timer.due -= 3600e3;
    const before = world.requests.length;
    await world.pass(10e3);
    assert.ok(world.requests.length - before >= 35);
  });
});

describe('the network and the laptop', () => {
  it('offline event is noticed at once', async () => {
    const world = new World();
    const poll = await world.wait('a');
    world.onrequest = request => request.fail();
    await world.dispatch('offline');
    await world.pass(0);
    assert.ok(poll.init.signal.aborted);
    assert.equal(world.client.state, 'offline');
  });

  it('answer overrides an offline event', async () => {
    const world = new World();
    await world.wait('a');
    await world.dispatch('offline');
    await world.last.answer({s: 0, k: {a: 5.5}});
    assert.equal(world.client.state, 'waiting');
  });

  it('online event ends the back-off', async () => {
    const world = new World();
    world.onrequest = request => request.fail();
    world.client.subscribe('a', () => {}, 5.5).run();
    await world.pass(40e3);
    const before = world.requests.length;
    world.onrequest = null;
    await world.dispatch('online');
    assert.equal(world.requests.length, before + 1);
    await world.last.answer({s: 0, k: {a: 5.5}});
    assert.equal(world.client.state, 'waiting');
  });

  it('poll without an answer times out', async () => {
    const world = new World();
    const poll = await world.wait('a');
    await world.pass(79e3);
    assert.ok(poll.open);
    await world.pass(12e3);
    assert.ok(!poll.open);
    assert.equal(world.errors[0].code, 'timeout');
    assert.equal(world.last.query, 'subscribed[a]=5.5&wait=0');
  });

  it('immediate requests time out sooner', async () => {
    const world = new World();
    world.client.subscribe('a', () => {}).run();
    await world.pass(120e3);
    assert.ok(world.requests.length >= 4);
    assert.equal(world.requests.filter(({open}) => open).length <= 1, true);
  });

  it('long laptop sleep aborts the poll', async () => {
    const world = new World();
    const poll = await world.wait('a');
    await world.pass(3e3);
    world.sleep(8 * 3600e3);
    await world.pass(6e3);
    assert.ok(poll.init.signal.aborted);
    assert.equal(world.last.query, 'subscribed[a]=5.5&wait=0');
  });

  it('short laptop sleep keeps the poll', async () => {
    const world = new World(), heard = [];
    world.hear = (k, {cursor}) => heard.push(cursor);
    const poll = await world.wait('a');
    world.sleep(20e3);
    await world.pass(6e3);
    await poll.answer({s: 1, k: {a: 6.5}});
    assert.deepEqual(heard, [6.5]);
  });
});

describe('the page', () => {
  it('restored page continues', async () => {
    const world = new World(), heard = [];
    world.hear = (k, {cursor}) => heard.push(cursor);
    const poll = await world.wait('a');
    await world.dispatch('pagehide', {persisted: true});
    assert.ok(poll.init.signal.aborted);
    await world.pass(120e3);
    assert.equal(world.last, poll);
    await world.dispatch('pageshow', {persisted: true});
    assert.equal(world.last.query, 'subscribed[a]=5.5&wait=0');
    await world.last.answer({s: 1, k: {a: 6.5}});
    assert.deepEqual(heard, [6.5]);
    assert.deepEqual(world.states, ['connecting', 'waiting', 'connecting', 'waiting']);
  });

  it('immediate restore makes one loop', async () => {
    const world = new World();
    await world.wait('a');
    world.window.dispatchEvent(new Event('pagehide'));
    world.window.dispatchEvent(Object.assign(new Event('pageshow'), {persisted: true}));
    await settle();
    await world.last.answer({s: 0, k: {a: 5.5}});
    await world.pass(1000);
    assert.equal(world.requests.filter(({open}) => open).length, 1);
    assert.equal(world.client.state, 'waiting');
  });

  it('pagehide does not abort a publish', async () => {
    const world = new World();
    await world.wait('a');
    world.client.publish('b');
    await world.dispatch('pagehide', {persisted: false});
    assert.ok(!world.last.init.signal.aborted);
  });

  it('first pageshow does not restart', async () => {
    const world = new World();
    world.client.subscribe('a', () => {}).run();
    await settle();
    await world.dispatch('pageshow', {persisted: false});
    assert.equal(world.requests.length, 1);
    assert.ok(world.last.open);
  });
});

describe("exceptions in the page's code", () => {
  const bang = () => { throw new Error('bang'); };

  it('callback exception stops no other callback', async () => {
    const world = new World(), heard = [];
    world.client.subscribe('a', bang).subscribe('b', (k, {id}) => heard.push(id));
    world.client.run();
    await settle();
    await world.last.answer({s: 0, k: {a: 5.5, b: 5.5}});
    await world.last.answer({s: 1, k: {a: 6.5, b: 6.5}});
    await world.pass(200);
    assert.deepEqual(heard, ['b']);
    assert.deepEqual(world.errors.map(({message}) => message), ['bang']);
    assert.deepEqual(world.thrown.map(({message}) => message), ['bang']);
    assert.equal(world.last.query, 'subscribed[a]=6.5&subscribed[b]=6.5&wait=60');
    assert.equal(world.client.state, 'waiting');
  });

  it('listener exception does not stop the client', async () => {
    const world = new World();
    world.client.on('state', bang).on('error', bang);
    await (await world.wait('a')).fail();
    await world.pass(1000);
    assert.equal(world.requests.length, 3);
    await world.pass(1000);
    assert.equal(world.thrown.length, 4);
  });

  it('missing callback throws', () => {
    const {client} = new World();
    assert.throws(() => client.subscribe('a'), TypeError);
    assert.throws(() => client.listen('a', 'f'), TypeError);
  });
});

describe('listeners', () => {
  it('off removes a listener', async () => {
    const world = new World(), heard = [];
    const hear = state => heard.push(state);
    world.client.on('state', hear);
    await world.wait('a');
    world.client.off('state', hear).stop();
    assert.deepEqual(heard, ['connecting', 'waiting']);
  });

  it('unknown type throws', () => {
    const {client} = new World();
    assert.throws(() => client.on('stat', () => {}), TypeError);
  });
});

describe('instances', () => {
  it('two clients are independent', async () => {
    const one = new World('one.php'), two = new World('two.php');
    await one.wait('a');
    await two.wait('b');
    assert.equal(one.last.url, 'one.php?subscribed[a]=5.5&wait=60');
    assert.equal(two.last.url, 'two.php?subscribed[b]=5.5&wait=60');
    one.client.stop();
    assert.equal(two.client.state, 'waiting');
  });
});

describe('many subscriptions', () => {
  it('all topics share one request', async () => {
    const world = new World();
    await world.wait(...Array.from({length: 50}, (_, i) => `topic-${i}`));
    assert.equal(world.requests.length, 2);
    assert.equal(world.last.query.split('subscribed[').length - 1, 50);
    assert.ok(world.last.query.length < 8192);
  });
});
