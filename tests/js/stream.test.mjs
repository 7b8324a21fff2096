// Streams, and how 'auto' detects whether they arrive.
import assert from 'node:assert/strict';
import {describe, it} from 'node:test';
import NovComet from '../../htdocs/NovComet.mjs';
import {World, event, settle} from './world.mjs';

const MINUTE = 60e3;
const stream = 'subscribed[a]=5.5&stream=json', poll = 'subscribed[a]=5.5&wait=60', look = 'subscribed[a]=5.5&wait=0';

const make = transport => {
  const world = new World(undefined, {transport}), heard = [];
  world.hear = (k, {data}) => heard.push(data);
  return {world, heard};
};

const one = {s: 1, k: {a: 6.5}, m: {a: [{id: 6.5, data: 'one'}]}};
const two = {s: 1, k: {a: 7.5}, m: {a: [{id: 7.5, data: 'two'}]}};

/** The requests since `from`, without the cursors. */
const kinds = (world, from = 0) => world.requests.slice(from)
  .map(({query}) => query.match(/wait=0$|wait=60$|stream=json$/)[0].replace('=json', ''));

/** A stream that begins and ends in one piece. */
const brief = (request, text = event({s: 0, k: {a: 5.5}})) => {
  request.stream();
  request.send(text);
  request.end();
};

/** The state that the demo page would show, without a fault. */
const assertCalm = world => {
  assert.deepEqual(world.errors, []);
  assert.equal(world.client.state, 'waiting');
};

describe('a stream', () => {
  it('first event has the cursors', async () => {
    const {world, heard} = make('stream');
    world.client.subscribe('a', world.hear).subscribe('b', world.hear, 4.5).run();
    await settle();
    assert.equal(world.last.query, 'subscribed[a]=0&subscribed[b]=4.5&stream=json');
    await world.last.stream();
    assert.equal(world.client.state, 'connecting');
    await world.last.send(': novcomet\nretry: 1000\nid: hof6g6si4m-255s\n');
    assert.equal(world.client.state, 'connecting');
    await world.last.send('data: {"s":0,"k":{"a":1795415403.163846,"b":4.500000}}\n\n');
    assertCalm(world);
    await world.pass(2e3);
    await world.last.end();
    await world.pass(100);
    assert.equal(world.last.query, 'subscribed[a]=1795415403.163846&subscribed[b]=4.5&stream=json');
    assert.deepEqual(heard, []);
  });

  it('one request brings many answers', async () => {
    const {world, heard} = make('stream');
    const request = await world.flow('a');
    await request.say(one);
    await request.send(event(two) + event({s: 1, k: {a: 8.5}}));
    assert.deepEqual(heard, ['one', 'two', undefined]);
    assert.equal(world.last, request);
  });

  const text = `: novcomet\nretry: 1000\n${event({s: 0, k: {a: 5.5}})}:\n` + event(
    {s: 1, k: {a: 6.5}, m: {a: [{id: 6.5, data: 'ü€😀\n\r"\u2028data: {}\n\n'}]}}) + event(two);
  const bytes = new TextEncoder().encode(text);
  const read = async (...chunks) => {
    const {world, heard} = make('stream');
    world.client.subscribe('a', world.hear).run();
    await settle();
    await world.last.stream();
    for (const chunk of chunks) await world.last.send(chunk);
    assert.deepEqual(heard, ['ü€😀\n\r"\u2028data: {}\n\n', 'two']);
    assertCalm(world);
  };

  it('any packet boundary is accepted', async () => {
    for (let at = 0; at <= bytes.length; at++) await read(bytes.subarray(0, at), bytes.subarray(at));
  });

  it('single bytes are accepted', () => read(...Array.from(bytes, byte => Uint8Array.of(byte))));

  it('only a complete line is delivered', async () => {
    const {world, heard} = make('stream');
    await world.flow('a');
    const {length} = JSON.stringify(one);
    await world.last.send(`data: ${JSON.stringify(one)}`.slice(0, length));
    assert.deepEqual(heard, []);
    await world.last.send(`data: ${JSON.stringify(one)}\n`.slice(length));
    assert.deepEqual(heard, ['one']);
  });

  it('other fields and CRLF are accepted', async () => {
    const {world, heard} = make('stream');
    await world.flow('a');
    await world.last.send(`event: x\r\nid\nfoo: data: 1\ndatabase: 2\n data: 3\ndata:${JSON.stringify(one)}\r\n\r\n`);
    assert.deepEqual(heard, ['one']);
    assertCalm(world);
  });

  it('ended stream continues at once', async () => {
    const {world, heard} = make('stream');
    await world.flow('a');
    for (let i = 0; i < 20; i++) {
      await world.pass(15e3);
      await world.last.send(':\n');
    }
    await world.last.say(one);
    await world.last.end();
    await world.pass(99);
    assert.equal(world.requests.length, 1);
    await world.pass(1);
    assert.equal(world.last.query, 'subscribed[a]=6.5&stream=json');
    await world.begin({a: 6.5});
    await world.last.say(two);
    assert.deepEqual(heard, ['one', 'two']);
    assertCalm(world);
    assert.deepEqual(world.states, ['connecting', 'waiting']);
  });

  it('sleepTime and Retry-After delay the next stream', async () => {
    const {world} = make('stream');
    world.client.sleepTime = 1000;
    world.client.subscribe('a', () => {}, 5.5).run();
    await settle();
    await world.last.stream({headers: {'Content-Type': 'text/event-stream; charset=utf-8', 'Retry-After': '7'}});
    await world.last.say({s: 0, k: {a: 5.5}});
    await world.pass(2e3);
    await world.last.end();
    await world.pass(8099);
    assert.equal(world.requests.length, 1);
    await world.pass(1);
    assert.equal(world.requests.length, 2);
  });

  for (const transport of ['stream', 'auto']) {
    it(`streams that end early back off (${transport})`, async () => {
      const {world} = make(transport);
      world.onrequest = request => request.query.endsWith('stream=json')
        ? brief(request) : request.answer({s: 0, k: {a: 5.5}});
      world.client.subscribe('a', () => {}, 5.5).run();
      await world.pass(5 * MINUTE);
      assert.ok(world.requests.length <= 16, `${world.requests.length} requests`);
      assert.deepEqual(world.errors, []);
    });
  }

  it('short streams with events keep the limit', async () => {
    const {world, heard} = make('stream');
    let cursor = 6;
    world.luck = 0;
    world.onrequest = request =>
      brief(request, event({s: 0, k: {a: cursor + 0.5}}) + event({s: 1, k: {a: ++cursor + 0.5}}));
    world.client.subscribe('a', world.hear).run();
    await world.pass(MINUTE);
    assert.ok(heard.length > 200 && heard.length <= 60 * 4 + 11, `${heard.length} requests`);
  });

  it('25 s of silence reopens the stream', async () => {
    const {world} = make('stream');
    const request = await world.flow('a');
    await request.say(one);
    await world.pass(25e3);
    assert.ok(request.open);
    await world.pass(5e3);
    assert.ok(!request.open);
    await world.pass(1e3);
    assert.equal(world.last.query, 'subscribed[a]=6.5&stream=json');
    await world.begin({a: 6.5});
    await world.pass(1e3);
    assert.deepEqual(world.states, ['connecting', 'waiting']);
  });

  it('heartbeats keep the stream open', async () => {
    const {world} = make('stream');
    const request = await world.flow('a');
    for (let i = 0; i < 100; i++) {
      await world.pass(15e3);
      await request.send(':\n');
    }
    assert.equal(world.last, request);
    assertCalm(world);
  });

  it('long laptop sleep aborts the stream', async () => {
    const {world} = make('auto');
    const request = await world.flow('a');
    await world.pass(3e3);
    world.sleep(8 * 60 * MINUTE);
    await world.pass(6e3);
    assert.ok(request.init.signal.aborted);
    assert.equal(world.last.query, look);
    await world.last.answer({s: 0, k: {a: 5.5}});
    assert.equal(world.last.query, stream);
  });

  const broken = {
    'invalid JSON': request => request.send('data: {"s":1,"k"\n'),
    'foreign JSON': request => request.send('data: {"ok":true}\n'),
    'no connection': request => request.fail(),
  };
  for (const [name, happen] of Object.entries(broken)) {
    it(`${name}: retry has the same cursor`, async () => {
      const {world, heard} = make('stream');
      const request = await world.flow('a');
      await request.say(one);
      await happen(request);
      assert.ok(request.init.signal.aborted);
      await world.pass(1e3);
      assert.equal(world.last.query, 'subscribed[a]=6.5&stream=json');
      await world.begin({a: 6.5});
      await world.last.say(two);
      assert.deepEqual(heard, ['one', 'two']);
    });
  }

  it('stream without events is an error', async () => {
    const {world} = make('stream');
    world.client.subscribe('a', () => {}, 5.5).run();
    await settle();
    await world.last.stream();
    await world.last.send(': novcomet\n');
    await world.last.end();
    assert.equal(world.client.state, 'offline');
    assert.deepEqual(world.errors.map(({code}) => code), ['not-novcomet']);
  });

  it('refused stream backs off', async () => {
    const {world} = make('stream');
    world.onrequest = request => request.answer({title: 'Service Unavailable'}, {status: 503});
    world.client.subscribe('a', () => {}).run();
    await world.pass(200e3);
    const gaps = world.requests.slice(1).map(({at}, i) => at - world.requests[i].at);
    assert.deepEqual(gaps.slice(0, 8), [1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    assert.equal(world.errors[0].status, 503);
  });

  it('stream that never begins backs off', async () => {
    const {world} = make('stream');
    world.client.subscribe('a', () => {}).run();
    await world.pass(5 * MINUTE);
    assert.ok(world.requests.length <= 14, `${world.requests.length} requests`);
    assert.ok(world.requests.length >= 10 && world.requests.filter(({open}) => open).length <= 1);
  });
});

describe('a change of topics', () => {
  it('new topic reopens the stream', async () => {
    const {world, heard} = make('stream');
    const request = await world.flow('a');
    await request.say(one);
    world.client.subscribe('b', world.hear).subscribe('c', world.hear, 4.5);
    await settle();
    assert.ok(request.init.signal.aborted);
    assert.equal(world.last.query, 'subscribed[a]=6.5&subscribed[b]=0&subscribed[c]=4.5&stream=json');
    await world.begin({a: 6.5, b: 7.5, c: 4.5});
    world.client.unsubscribe('a');
    await settle();
    assert.equal(world.last.query, 'subscribed[b]=7.5&subscribed[c]=4.5&stream=json');
    assertCalm(world);
    assert.deepEqual(world.states, ['connecting', 'waiting']);
    assert.deepEqual(heard, ['one']);
  });

  it('new topic lets a stream begin first', async () => {
    const {world, heard} = make('stream');
    world.client.subscribe('a', world.hear).run();
    await settle();
    const request = world.last;
    world.client.subscribe('b', world.hear);
    await settle();
    assert.ok(request.open);
    await world.begin({a: 6.5});
    assert.ok(!request.open);
    assert.equal(world.last.query, 'subscribed[a]=6.5&subscribed[b]=0&stream=json');
    await world.begin({a: 6.5, b: 0.1});
    await world.last.say(two);
    assert.deepEqual(heard, ['two']);
    assertCalm(world);
  });

  it('subscribe in a callback completes the answer', async () => {
    const {world, heard} = make('stream');
    const request = await world.flow('a', 'b');
    world.client.subscribe('a', (k, {data}) => {
      heard.push(data);
      world.client.subscribe('c', world.hear, 4.5);
    });
    const m = {a: [{id: 6.5, data: 'one'}, {id: 7.5, data: 'two'}], b: [{id: 7.5, data: 'b'}]};
    await request.send(event({s: 1, k: {a: 7.5, b: 7.5}, m}) + event({s: 1, k: {a: 8.5}}));
    assert.deepEqual(heard, ['one', 'two', 'b']);
    assert.equal(world.last.query, 'subscribed[a]=7.5&subscribed[b]=7.5&subscribed[c]=4.5&stream=json');
    assert.equal(world.requests.length, 2);
  });

  it('last unsubscribe ends the stream', async () => {
    const {world} = make('stream');
    const request = await world.flow('a');
    world.client.unsubscribe('a');
    await settle();
    assert.ok(!request.open);
    assert.equal(world.client.state, 'stopped');
    await world.pass(MINUTE);
    assert.equal(world.last, request);
  });
});

describe('stop, and the page', () => {
  it('run reopens a stopped stream', async () => {
    const {world} = make('stream');
    const request = await world.flow('a');
    await request.say(one);
    world.client.stop();
    await world.pass(MINUTE);
    assert.ok(request.init.signal.aborted);
    assert.equal(world.last, request);
    world.client.run();
    await settle();
    assert.equal(world.last.query, 'subscribed[a]=6.5&stream=json');
    assert.deepEqual(world.errors, []);
  });

  it('pagehide ends the stream', async () => {
    const {world} = make('auto');
    const request = await world.flow('a');
    await world.dispatch('pagehide', {persisted: true});
    await world.pass(MINUTE);
    assert.ok(request.init.signal.aborted);
    assert.equal(world.last, request);
    await world.dispatch('pageshow', {persisted: true});
    assert.equal(world.last.query, look);
    await world.last.answer({s: 0, k: {a: 5.5}});
    assert.equal(world.last.query, stream);
  });
});

describe('the transport', () => {
  it('default is auto', () => {
    assert.equal(NovComet.transport, 'auto');
    assert.equal(new NovComet.Client('x', {transport: undefined}).transport, 'auto');
    assert.equal(new NovComet.Client('x', {transport: 'poll'}).transport, 'poll');
  });

  it('global named transport is ignored', t => {
    globalThis.transport = 'poll';
    t.after(() => delete globalThis.transport);
    assert.equal(new NovComet.Client('x').transport, 'auto');
  });

  it('change applies to the next request', async () => {
    const {world} = make('poll');
    const request = await world.wait('a');
    world.client.transport = 'stream';
    await settle();
    assert.ok(request.open);
    await request.answer(one);
    await world.pass(200);
    assert.equal(world.last.query, 'subscribed[a]=6.5&stream=json');
    await world.begin({a: 6.5});
    world.client.transport = 'poll';
    await world.last.say(two);
    await world.pass(1e3);
    await world.last.end();
    await world.pass(200);
    assert.equal(world.last.query, 'subscribed[a]=7.5&wait=60');
  });

  it('poll sends no stream request', async () => {
    const {world} = make('poll');
    world.onrequest = request => setImmediate(() => request.answer({s: 0, k: {a: 5.5}}));
    world.client.subscribe('a', () => {}).run();
    await world.pass(20 * MINUTE);
    assert.ok(world.requests.length > 30);
    assert.ok(!kinds(world).includes('stream'));
  });

  for (const [name, happen] of Object.entries({
    'no answer comes': () => {},
    'the answer is JSON': request => request.answer({s: 0, k: {a: 5.5}}),
    'it is refused': request => request.answer('<h1>No</h1>', {status: 403}),
    'it ends early': request => brief(request),
  })) {
    it(`stream sends no poll when ${name}`, async () => {
      const {world} = make('stream');
      world.onrequest = happen;
      world.client.subscribe('a', () => {}).run();
      await world.pass(10 * MINUTE);
      assert.deepEqual([...new Set(kinds(world))], ['stream']);
      assert.ok(world.requests.length >= 5 && world.requests.length < 40, `${world.requests.length} requests`);
    });
  }

  it('stream accepts a JSON answer', async () => {
    const {world, heard} = make('stream');
    world.client.subscribe('a', world.hear, 5.5).run();
    await settle();
    await world.last.answer(one);
    await world.pass(200);
    assert.equal(world.last.query, 'subscribed[a]=6.5&stream=json');
    assert.deepEqual(heard, ['one']);
    assertCalm(world);
  });
});

describe('auto', () => {
  it('immediate request precedes the first stream', async () => {
    const {world, heard} = make('auto');
    await world.flow('a');
    assert.deepEqual(kinds(world), ['wait=0', 'stream']);
    await world.last.say(one);
    assert.deepEqual(heard, ['one']);
    assertCalm(world);
  });

  it('later streams need no immediate request', async () => {
    const {world} = make('auto');
    await world.flow('a');
    world.client.subscribe('b', () => {});
    await settle();
    await world.begin({a: 5.5, b: 6.5});
    await world.pass(2e3);
    await world.last.end();
    await world.pass(200);
    assert.deepEqual(kinds(world), ['wait=0', 'stream', 'stream', 'stream']);
    assert.equal(world.last.query, 'subscribed[a]=5.5&subscribed[b]=6.5&stream=json');
  });

  /** Returns after a stream was requested and before it has begun. */
  const ask = async (setup = make('auto')) => {
    const {world} = setup;
    world.client.subscribe('a', world.hear, 5.5).run();
    await settle();
    await world.last.answer({s: 0, k: {a: 5.5}});
    assert.equal(world.last.query, stream);
    return {...setup, request: world.last};
  };

  for (const [name, happen] of Object.entries({
    'has no response head': () => {},
    'does not begin': request => request.stream(),
    'stops in its first event': async request => {
      await request.stream();
      await request.send(': novcomet\nretry: 1000\nid: hof6g6si4m-255s\ndata: {"s":0,"k":{"a":');
    },
  })) {
    it(`stream that ${name} is replaced silently`, async () => {
      const {world, heard, request} = await ask();
      await happen(request);
      await world.pass(3999);
      assert.ok(request.open);
      await world.pass(2e3);
      assert.ok(request.init.signal.aborted);
      assert.equal(world.last.query, look);
      await world.last.answer(one);
      assert.equal(world.last.query, 'subscribed[a]=6.5&wait=60');
      await world.last.answer(two);
      assert.deepEqual(heard, ['one', 'two']);
      assertCalm(world);
      assert.deepEqual(world.states, ['connecting', 'waiting']);
    });
  }

  for (const [name, happen] of Object.entries({
    'a proxy page, 502': request => request.answer('<h1>Bad Gateway</h1>', {status: 502}),
    'a proxy page, 403': request => request.answer('<h1>No media</h1>', {status: 403}),
    'a proxy page, 200': request => request.answer('<h1>Please log in</h1>'),
    'a closed connection': request => request.fail(),
    'no events': async request => {
      await request.stream();
      await request.end();
    },
    'no readable body': request => request.stream({body: null}),
    'a body without a reader': request => request.stream({body: {}}),
  })) {
    it(`polls replace a stream with ${name}`, async () => {
      const {world, request} = await ask();
      await happen(request);
      assert.ok(request.init.signal.aborted);
      assert.equal(world.last.query, look);
      await world.last.answer({s: 0, k: {a: 5.5}});
      assert.equal(world.last.query, poll);
      assertCalm(world);
    });
  }

  it('polls replace streams without TextDecoder', async () => {
    const world = Object.assign(new World(undefined, {transport: 'auto', TextDecoder: undefined}), {hear() {}});
    const {request} = await ask({world});
    await request.stream();
    assert.equal(world.last.query, look);
    await world.last.answer({s: 0, k: {a: 5.5}});
    assert.equal(world.last.query, poll);
    assertCalm(world);
  });

  it('JSON answer is delivered before polling', async () => {
    const {world, heard, request} = await ask();
    await request.answer(one);
    await world.pass(200);
    assert.equal(world.last.query, 'subscribed[a]=6.5&wait=60');
    assert.deepEqual(heard, ['one']);
    assertCalm(world);
  });

  it('error from NovComet does not disable streams', async () => {
    const {world} = make('auto');
    world.onrequest = request => request.query.endsWith('wait=0')
      ? request.answer({s: 0, k: {a: 5.5}})
      : request.answer({title: 'Service Unavailable', detail: 'no store'}, {status: 503});
    world.client.subscribe('a', () => {}, 5.5).run();
    await world.pass(5 * MINUTE);
    assert.deepEqual([...new Set(kinds(world))], ['wait=0', 'stream']);
    assert.ok(world.requests.length <= 34, `${world.requests.length} requests`);
    assert.equal(world.errors[0].message, 'no store');
  });

  it('stream returns after a server failure', async () => {
    const {world, heard} = make('auto');
    const request = await world.flow('a');
    await world.pass(2e3);
    await request.fail();
    await world.pass(500);
    assert.equal(world.client.state, 'waiting');
    for (let i = 0; i < 5; i++) {
      await world.pass(30e3);
      assert.equal(world.last.query, look);
      await world.last.fail();
    }
    await world.pass(30e3);
    await world.last.answer(one);
    assert.equal(world.last.query, 'subscribed[a]=6.5&stream=json');
    await world.begin({a: 6.5});
    await world.last.say(two);
    assert.deepEqual(heard, ['one', 'two']);
    assert.equal(world.client.state, 'waiting');
  });

  /** A stream that begins and then is silent. The client abandons it after 25 to 30 s. */
  const mute = async world => {
    assert.match(world.last.query, /stream=json$/);
    await world.begin({a: 5.5});
    await world.pass(31e3);
    if (world.last.query.endsWith('wait=0')) await world.last.answer({s: 0, k: {a: 5.5}});
  };

  it('second silent stream starts polling', async () => {
    const {world} = await ask();
    await mute(world);
    assert.equal(world.last.query, stream);
    await mute(world);
    assert.equal(world.last.query, poll);
    assert.deepEqual(world.errors, []);
    assert.equal(world.client.state, 'waiting');
  });

  it('run resets the count of silent streams', async () => {
    const {world} = await ask();
    await mute(world);
    world.client.stop().run();
    await settle();
    await world.last.answer({s: 0, k: {a: 5.5}});
    await mute(world);
    assert.equal(world.last.query, stream);
  });

  it('heartbeat resets the count of silent streams', async () => {
    const {world} = await ask();
    for (let i = 0; i < 5; i++) {
      await mute(world);
      assert.equal(world.last.query, stream);
      await world.begin({a: 5.5});
      await world.pass(15e3);
      await world.last.send(':\n');
      await world.last.end();
      await world.pass(200);
    }
    assert.equal(world.last.query, stream);
  });

  for (const [name, end] of Object.entries({
    'end early': request => request.end(),
    'break early': request => request.fail(),
  })) {
    it(`polls follow two streams that ${name}`, async () => {
      const {world, heard} = await ask();
      for (let i = 0; i < 2; i++) {
        assert.equal(world.last.query, stream);
        await world.begin({a: 5.5});
        await end(world.last);
        await world.pass(1e3);
        if (world.last.query === look) await world.last.answer({s: 0, k: {a: 5.5}});
      }
      assert.equal(world.last.query, poll);
      await world.last.answer(one);
      assert.deepEqual(heard, ['one']);
      assert.equal(world.client.state, 'waiting');
    });
  }

  /** Returns at the long poll behind a proxy that blocks streams. */
  const stepDown = async () => {
    const setup = await ask(), {world} = setup;
    await world.pass(6e3);
    await world.last.answer({s: 0, k: {a: 5.5}});
    assert.equal(world.last.query, poll);
    return setup;
  };

  it('stream is retried after ten minutes', async () => {
    const {world, heard} = await stepDown(), from = world.now, before = world.requests.length;
    while (world.last.query === poll) {
      await world.pass(40e3);
      await world.last.answer({s: 0, k: {a: 5.5}});
      await world.pass(200);
    }
    assert.ok(world.now - from >= 590e3 && world.now - from <= 645e3, `${world.now - from} ms`);
    assert.deepEqual(kinds(world, before), [...Array(kinds(world, before).length - 1).fill('wait=60'), 'stream']);
    await world.begin({a: 5.5});
    await world.last.say(one);
    assert.deepEqual(heard, ['one']);
    assertCalm(world);
    assert.deepEqual(world.states, ['connecting', 'waiting']);
  });

  it('failed retry continues polling silently', async () => {
    const {world} = await stepDown();
    while (world.last.query === poll) {
      await world.pass(40e3);
      await world.last.answer({s: 0, k: {a: 5.5}});
      await world.pass(200);
    }
    await world.pass(6e3);
    await world.last.answer({s: 0, k: {a: 5.5}});
    assert.equal(world.last.query, poll);
    assertCalm(world);
  });

  for (const [name, happen] of Object.entries({
    'a stop and a run': world => world.client.stop().run(),
    'an online event': world => world.dispatch('online'),
    'a pageshow event': async world => {
      await world.dispatch('pagehide', {persisted: true});
      await world.dispatch('pageshow', {persisted: true});
    },
  })) {
    it(`stream is retried after ${name}`, async () => {
      const {world} = await stepDown();
      await happen(world);
      await settle();
      assert.equal(world.last.query, look);
      await world.last.answer({s: 0, k: {a: 5.5}});
      assert.equal(world.last.query, stream);
    });
  }

  it('new topic during polls gets a cursor', async () => {
    const {world} = await stepDown();
    world.client.subscribe('b', () => {});
    await settle();
    assert.equal(world.last.query, 'subscribed[b]=0&wait=0');
  });
});
