// What a page does with the client beyond the interface of 2011.
import assert from 'node:assert/strict';
import {describe, it} from 'node:test';
import NovComet from '../../htdocs/NovComet.mjs';
import {World, settle} from './world.mjs';

describe('several callbacks', () => {
  it('each gets every event, and can be taken away', async () => {
    const world = new World(), heard = [];
    const hear = name => (k, {data}) => heard.push(name + data);
    const off = world.client.listen('a', hear('x')), poll = () => world.last;
    world.client.listen('a', hear('y'));
    world.client.subscribe('a', hear('main')).subscribe('a', hear('instead')).run();
    await settle();
    await poll().answer({s: 0, k: {a: 5.5}});
    await poll().answer({s: 1, k: {a: 6.5}, m: {a: [{id: 6.5, data: '1'}]}});
    await world.pass(200);
    const open = poll();
    off();
    off();
    assert.ok(open.open, 'another callback needs the topic');
    await poll().answer({s: 1, k: {a: 7.5}, m: {a: [{id: 7.5, data: '2'}]}});
    assert.deepEqual(heard, ['x1', 'y1', 'instead1', 'y2', 'instead2']);
    world.client.unsubscribe('a');
    await world.pass(1000);
    assert.equal(world.client.state, 'stopped');
  });

  it('a later one begins with the next event, without a request', async () => {
    const world = new World(), heard = [];
    const poll = await world.wait('a');
    world.client.listen('a', (k, {data}) => heard.push(data));
    await settle();
    assert.equal(world.last, poll);
    await poll.answer({s: 1, k: {a: 6.5}, m: {a: [{id: 6.5, data: 'new'}]}});
    assert.deepEqual(heard, ['new']);
  });

  it('a later one with a cursor gets what is stored, and the first nothing twice', async () => {
    const world = new World(), first = [], second = [];
    world.hear = (k, {data}) => first.push(data);
    await world.wait('a');
    world.client.listen('a', (k, {data}) => second.push(data), 'earliest');
    await settle();
    assert.equal(world.last.query, 'subscribed[a]=earliest&wait=0');
    await world.last.answer({s: 1, k: {a: 5.5}, m: {a: [{id: 4.5, data: 'old'}, {id: 5.5, data: 'last'}]}});
    assert.equal(world.last.query, 'subscribed[a]=5.5&wait=60');
    await world.last.answer({s: 1, k: {a: 6.5}, m: {a: [{id: 6.5, data: 'new'}]}});
    assert.deepEqual([first, second], [['new'], ['old', 'last', 'new']]);
  });

  it('a later one behind the others is caught up', async () => {
    const world = new World(), first = [], second = [];
    world.hear = (k, {data}) => first.push(data);
    await world.wait('a');
    world.client.listen('a', (k, {data}) => second.push(data), 3.5);
    await settle();
    assert.equal(world.last.query, 'subscribed[a]=3.5&wait=60');
    await world.last.answer({s: 1, k: {a: 6.5}, gap: ['a'], m: {a: [{id: 5.5, data: 'old'}, {id: 6.5, data: 'new'}]}});
    assert.deepEqual([first, second], [['new'], ['old', 'new']]);
  });
});

describe('messages', () => {
  it('event.json reads an object', async () => {
    const world = new World(), heard = [];
    world.hear = (k, event) => heard.push(event.json());
    await (await world.wait('a')).answer({s: 1, k: {a: 6.5}, m: {a: [{id: 6.5, data: '{"n":[1,2]}'}]}});
    assert.deepEqual(heard, [{n: [1, 2]}]);
  });

  it('objects are sent as JSON', async () => {
    const world = new World();
    for (const data of [{a: 1}, [1, 2], null, new Date(0), Object.create({toJSON: () => 7})]) {
      const before = world.requests.length;
      world.client.publish('a', data);
      await settle();
      assert.equal(new URLSearchParams(world.requests[before].init.body).get('data'), JSON.stringify(data));
      await world.last.answer({s: 1, k: {a: 6.5}});
    }
  });

  it('what is no message throws at once', () => {
    const {client} = new World(), circle = {};
    circle.self = circle;
    for (const data of [() => {}, Symbol('s'), 1n, Promise.resolve(), new Map(), new Blob(), new Uint8Array(1), circle]) {
      assert.throws(() => client.publish('a', data), TypeError);
    }
  });

  it("'latest' is sent as it is", async () => {
    const world = new World();
    world.client.subscribe('a', () => {}, 'latest').run();
    await settle();
    assert.equal(world.last.query, 'subscribed[a]=latest&wait=0');
  });
});

describe('the order of publishes', () => {
  const batchOf = request => JSON.parse(new URLSearchParams(request.init.body).get('batch'));

  it('those of one moment go in one request, and later ones wait', async () => {
    const world = new World(), {client} = world;
    const answers = ['1', '2', '3'].map(data => client.publish('a', data));
    await settle();
    client.publish('b');
    client.publish('c', '4');
    await settle();
    assert.equal(world.requests.length, 1);
    assert.deepEqual(batchOf(world.last), ['1', '2', '3'].map(data => ({publish: 'a', data})));
    await world.last.answer([1, 2, 3].map(n => ({s: 1, k: {a: n + .5}})));
    assert.deepEqual((await Promise.all(answers)).map(({k}) => k.a), [1.5, 2.5, 3.5]);
    assert.equal(world.requests.length, 2);
    assert.deepEqual(batchOf(world.last), [{publish: 'b'}, {publish: 'c', data: '4'}]);
  });

  it('one that fails does not stop the others', async () => {
    const world = new World(), {client} = world;
    const answers = [1, 2].map(data => client.publish('a', data));
    await settle();
    await world.last.answer([{title: 'Content Too Large', status: 413, detail: 'too long'}, {s: 1, k: {a: 6.5}}]);
    await assert.rejects(answers[0], {message: 'too long', status: 413, code: 'too-large'});
    assert.deepEqual((await answers[1]).k, {a: 6.5});
    assert.equal(world.errors.length, 1);
  });

  it('a refused request is sent again one by one', async () => {
    const world = new World(), {client} = world;
    const answers = [1, 2].map(data => client.publish('a', data));
    await settle();
    await world.last.answer({detail: 'what?'}, {status: 400});
    await world.last.answer({detail: 'no'}, {status: 403});
    await assert.rejects(answers[0], {status: 403});
    await world.last.answer({s: 1, k: {a: 6.5}});
    assert.deepEqual((await answers[1]).k, {a: 6.5});
    assert.equal(world.requests.length, 3);
  });

  it('a request holds at most 50 messages and 60 kB', async () => {
    const world = new World(), sizes = [];
    world.onrequest = request => {
      const batch = batchOf(request);
      sizes.push(batch?.length ?? 1);
      request.answer(batch ? batch.map(() => ({s: 1, k: {a: 6.5}})) : {s: 1, k: {a: 6.5}});
    };
    const all = [...Array(120).fill('x'), ...Array(3).fill('y'.repeat(25e3)), 'z'.repeat(70e3)];
    await Promise.all(all.map(data => world.client.publish('a', data)));
    assert.deepEqual(sizes, [50, 50, 22, 1, 1]);
  });

  it('a page that ends sends what waits', async () => {
    const world = new World(), {client} = world;
    await world.wait('x');
    client.publish('a', 1);
    await settle();
    client.publish('a', 2);
    client.publish('a', 3);
    await world.dispatch('pagehide', {persisted: false});
    assert.deepEqual(batchOf(world.last), [{publish: 'a', data: '2'}, {publish: 'a', data: '3'}]);
    assert.equal(world.last.init.keepalive, true);
  });
});

describe('errors that lead to the fix', () => {
  const answers = {
    'a page': [['<!doctype html>'], 'html', /login/],
    'the program': [['\x7fELF\x02'], 'binary', /CGI/],
    'other text': [['hello'], 'not-novcomet', /NovComet/],
    'a wrong path': [['<h1>', {status: 404}], 'not-found', /init/],
    'a program that cannot run': [['<h1>', {status: 500}], 'server', /error log/],
    'no right': [['{"detail":"this needs a token"}', {status: 401}], 'unauthorized', /^this needs a token$/],
    'too long a URL': [['<h1>', {status: 414}], 'too-large', /fewer topics/],
    'no room': [['', {status: 503}], 'unavailable', /HTTP 503/],
  };
  for (const [name, [answer, code, message]] of Object.entries(answers)) {
    it(`${name}: ${code}`, async () => {
      const world = new World('/app/comet.cgi?x=1');
      world.client.subscribe('a', () => {}).run();
      await settle();
      await world.last.answer(...answer);
      const [error] = world.errors;
      assert.equal(error.code, code);
      assert.match(error.message, message);
      assert.equal(error.url, '/app/comet.cgi?x=1');
      if (!/401/.test(error.status)) assert.match(error.message, /\/app\/comet\.cgi/);
    });
  }

  it('no answer: network', async () => {
    const world = new World();
    world.client.subscribe('a', () => {}).run();
    await settle();
    await world.last.fail();
    assert.equal(world.errors[0].code, 'network');
    assert.match(world.errors[0].message, /comet\.php.*CORS/);
  });

  it('without a listener the console has each once', async () => {
    const warnings = [], world = new World(), client = new NovComet.Client('/x.cgi', world.platform({console: {warn: text => warnings.push(text)}}));
    world.onrequest = request => request.answer('<html>');
    client.subscribe('a', () => {}).run();
    await world.pass(60e3);
    assert.equal(warnings.length, 1);
    assert.match(warnings[0], /^NovComet: .*\/x\.cgi/);
  });

  it('a forgotten run is told once', async () => {
    const world = new World();
    world.client.subscribe('a', () => {}).subscribe('b', () => {});
    await world.pass(10e3);
    assert.equal(world.warnings.length, 1);
    assert.match(world.warnings[0], /run\(\)/);
  });

  it('calls without sense throw', () => {
    const {client} = new World();
    assert.throws(() => client.on('message', () => {}), {name: 'TypeError', message: /'message'.*state, error/});
    assert.throws(() => { client.transport = 'websocket'; }, {name: 'TypeError', message: /websocket.*auto/});
    assert.throws(() => new NovComet.Client('x', {transport: 'socket'}), TypeError);
    assert.throws(() => client.subscribe('a', 'f'), {name: 'TypeError', message: /callback/});
    assert.equal(client.transport, 'poll');
  });
});

describe('tokens', () => {
  const jwt = (claims, n = 0) => `h.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.${n}`;
  const sent = request => request.init.headers?.Authorization;

  it('is sent with every request', async () => {
    const world = new World('comet.php', {token: 'abc', credentials: 'include'});
    await world.wait('a');
    world.client.publish('a', 1);
    await settle();
    assert.equal(world.requests.length, 3);
    for (const request of world.requests) {
      assert.equal(sent(request), 'Bearer abc');
      assert.equal(request.init.credentials, 'include');
    }
  });

  it('is asked again at a 401, and the request repeated at once', async () => {
    let n = 0;
    const asked = [], world = new World('comet.php', {token: async refused => (asked.push(refused), `t${++n}`)});
    world.client.subscribe('a', () => {}).run();
    await settle();
    await world.last.answer({detail: 'expired'}, {status: 401});
    assert.equal(sent(world.last), 'Bearer t2');
    await world.last.answer({s: 0, k: {a: 5.5}});
    assert.deepEqual([world.errors, world.client.state, asked], [[], 'waiting', [undefined, true]]);
    await world.last.answer({detail: 'no'}, {status: 401});
    await world.last.answer({detail: 'no'}, {status: 401});
    await world.pass(60e3);
    assert.equal(world.errors[0].status, 401);
  });

  it('a publish waits for the token, too', async () => {
    let give;
    const world = new World('comet.php', {token: () => new Promise(resolve => { give = resolve; })});
    world.client.subscribe('a', () => {}).run();
    await settle();
    const first = give;
    world.client.publish('a', 1);
    await settle();
    for (const f of [first, give]) f('t');
    await settle();
    assert.deepEqual(world.requests.map(sent), ['Bearer t', 'Bearer t']);
  });

  it('is asked again after it was not given', async () => {
    let n = 0;
    const world = new World('comet.php', {token: () => n++ ? 't' : Promise.reject(new Error('login'))});
    world.client.subscribe('a', () => {}).run();
    await world.pass(5000);
    assert.deepEqual([world.errors[0].message, world.errors[0].code], ['no token: login', 'unauthorized']);
    assert.equal(sent(world.requests[0]), 'Bearer t');
  });

  it('is asked again before it expires', async () => {
    let n = 0;
    const world = new World('comet.php', {transport: 'stream'}), start = world.now / 1e3;
    world.client.token = () => jwt({sub: 'u', exp: world.now / 1e3 + 120}, ++n);
    await world.flow('a');
    const stream = world.last, first = sent(stream);
    for (let t = 0; t < 130 && stream.open; t += 15) {
      await world.pass(15e3);
      if (stream.open) await stream.send(':\n');
    }
    assert.ok(!stream.open && world.now / 1e3 < start + 120);
    await world.pass(1000);
    assert.notEqual(sent(world.last), first);
    assert.deepEqual(world.errors, []);
  });

  it('a function that fails is an error', async () => {
    const world = new World('comet.php', {token: () => { throw new Error('logged out'); }});
    world.client.subscribe('a', () => {}).run();
    await settle();
    assert.equal(world.requests.length, 0);
    assert.equal(world.errors[0].message, 'no token: logged out');
  });
});

describe("resume: 'session'", () => {
  const storage = () => {
    const items = new Map();
    return {getItem: key => items.get(key) ?? null, setItem: (key, value) => items.set(key, value)};
  };

  it('the next page of the tab goes on', async () => {
    const sessionStorage = storage(), options = {resume: 'session', sessionStorage};
    const one = new World('comet.php', options);
    await (await one.wait('a', '__proto__')).answer({s: 1, k: {a: 7.5}});
    await one.dispatch('pagehide', {persisted: false});
    const two = new World('comet.php', options);
    two.client.subscribe('a', () => {}, 'latest').subscribe('b', () => {}).run();
    await settle();
    assert.equal(two.last.query, 'subscribed[b]=0&wait=0');
    await two.last.answer({s: 0, k: {b: 8.5}});
    assert.equal(two.last.query, 'subscribed[a]=7.5&subscribed[b]=8.5&wait=60');
    const other = new World('other.php', options);
    other.client.subscribe('a', () => {}).run();
    await settle();
    assert.equal(other.last.query, 'subscribed[a]=0&wait=0');
  });

  it('without it, or without a storage, a page begins anew', async () => {
    const sessionStorage = storage(), one = new World('comet.php', {resume: 'session', sessionStorage});
    await one.wait('a');
    await one.dispatch('pagehide', {persisted: false});
    for (const options of [{sessionStorage}, {resume: 'session'}]) {
      const two = new World('comet.php', options);
      two.client.subscribe('a', () => {}).run();
      await settle();
      assert.equal(two.last.query, 'subscribed[a]=0&wait=0');
    }
  });
});

describe('a page that goes and comes', () => {
  it('is told nothing when it is left', async () => {
    const world = new World();
    const poll = await world.wait('a');
    await poll.fail(new TypeError('Load failed'));
    await world.dispatch('pagehide', {persisted: false});
    await world.pass(10e3);
    assert.deepEqual([world.errors, world.states], [[], ['connecting', 'waiting']]);
  });

  it('is told later what fails on the way to a slow page', async () => {
    const world = new World();
    const poll = await world.wait('a');
    await world.dispatch('beforeunload');
    world.onrequest = request => request.fail();
    await poll.fail();
    await world.pass(9e3);
    assert.deepEqual(world.errors, []);
    await world.pass(2e3);
    assert.equal(world.errors[0].code, 'network');
  });

  it('a resumed tab asks at once', async () => {
    const world = new World();
    const poll = await world.wait('a');
    await world.dispatch('freeze');
    assert.ok(!poll.open);
    await world.pass(33e3);
    assert.equal(world.requests.length, 2);
    await world.dispatch('resume');
    assert.equal(world.last.query, 'subscribed[a]=5.5&wait=0');
    assert.deepEqual(world.errors, []);
  });

  it('stop at pagehide and run at pageshow hears again', async () => {
    const world = new World();
    world.window.addEventListener('pageshow', () => world.client.run());
    await world.wait('a');
    world.window.addEventListener('pagehide', () => world.client.stop());
    await world.dispatch('pagehide', {persisted: true});
    await world.pass(1000);
    await world.dispatch('pageshow', {persisted: true});
    assert.equal(world.last.query, 'subscribed[a]=5.5&wait=0');
  });
});
