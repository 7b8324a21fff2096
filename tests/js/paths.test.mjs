// A server numbers its messages, and the path between it and the client fails in many ways. Each
// message is still delivered once, in order.
import assert from 'node:assert/strict';
import {describe, it} from 'node:test';
import {Hub, dice} from './hub.mjs';
import {World} from './world.mjs';

/** One stream on a path that passes on only some of `send` and `end`. */
const paths = {
  clear: ({send, end}) => ({send, end}),
  mute: () => ({send() {}, end() {}}),
  buffering({send, end}, random) {
    let held = '';
    const size = 1000 + random() * 3000;
    return {
      send(text) {
        held += text;
        if (held.length < size) return;
        send(held);
        held = '';
      },
      end() {
        send(held);
        end();
      },
    };
  },
  /** Passes on this number of bytes at most, possibly to the middle of a line. */
  cutting({send, end, fail}, random) {
    let left = random() * 2000 | 0;
    const stop = [end, fail, () => {}][random() * 3 | 0];
    return {
      send(text) {
        if (left > 0) send(text.slice(0, left));
        if (left > 0 && left <= text.length) stop();
        left -= text.length;
      },
      end() { if (left > 0) end(); },
    };
  },
  refusing({refuse}) {
    refuse();
    return {send() {}, end() {}};
  },
};

/** A client and the hub, and between them the path that `choose` returns for each request. */
const connect = (world, hub, choose, random) => {
  world.onrequest = request => {
    const alive = f => (...args) => { if (request.open) f.apply(request, args); };
    const fail = alive(() => { request.fail(); });
    const kind = choose(request);
    if (!request.query.endsWith('stream=json')) {
      const answer = alive(answer => { request.answer(JSON.stringify(answer)); });
      return world.after(20, () => kind === 'clear' ? hub.poll(request.query, answer) : hub.poll(request.query, fail));
    }
    const ends = {send: alive(request.send), end: alive(request.end), fail};
    const refuse = alive(() => { request.answer('<h1>No</h1>', {status: 502}); });
    const {send, end} = paths[kind]({...ends, refuse}, random);
    let begun = false;
    const begin = text => {
      if (!begun && request.open) request.stream();
      begun = true;
      send(text);
    };
    world.after(20, () => hub.stream(request.query, kind === 'refusing' ? send : begin, end));
  };
};

/** Publishes for `minutes` on the `chosen` paths, and then for one minute on a clear path. */
const live = async ({seed, transport, choose, minutes, disturb}) => {
  const world = new World(undefined, {transport}), hub = new Hub(world), random = dice(seed), heard = {a: [], b: []};
  world.luck = 0.5;
  let over = false, first = true;
  connect(world, hub, request => {
    const kind = over || first ? 'clear' : choose(random, request);
    first = false;
    return kind;
  }, random);
  world.hear = (k, {id, data}) => heard[id].push(data);
  world.client.subscribe('a', world.hear).subscribe('b', world.hear).run();
  await world.pass(30);
  for (let t = 0; t < minutes * 60; t++) {
    if (random() < 0.7) hub.publish(random() < 0.8 ? 'a' : 'b');
    await disturb?.(world, random);
    await world.pass(random() * 2000);
  }
  over = true;
  world.client.run();
  await world.dispatch('online');
  await world.pass(60e3);
  return {world, hub, heard};
};

const assertAll = ({hub, heard}) => {
  for (const id of ['a', 'b']) assert.deepEqual(heard[id], hub.topics.get(id).map(({data}) => data));
  assert.ok(heard.a.length > 50);
};

const count = (world, like) => world.requests.filter(({query}) => like.test(query)).length;

describe('each message is delivered once', () => {
  for (const path of Object.keys(paths)) {
    for (const transport of ['auto', 'stream']) {
      it(`${transport}: every stream is ${path}`, async () => {
        const result = await live({seed: 7, transport, minutes: 5, choose: (random, {query}) =>
          query.endsWith('stream=json') ? path : 'clear'});
        assertAll(result);
        const polls = count(result.world, /wait=60$/), streams = count(result.world, /stream=json$/);
        assert.equal(polls > 0, transport === 'auto' && path !== 'clear');
        assert.ok(streams > 0);
      });
    }
  }

  for (let seed = 1; seed <= 30; seed++) {
    const transport = ['auto', 'stream', 'poll'][seed % 3];
    it(`${transport}: path and page change (${seed})`, async () => {
      assertAll(await live({
        seed, transport, minutes: 10,
        choose: random => ['clear', 'clear', ...Object.keys(paths)][random() * 7 | 0],
        async disturb({client, window}, random) {
          if (random() < 0.02) client.stop();
          if (random() < 0.1) client.run();
          if (random() < 0.02) window.dispatchEvent(new Event(random() < 0.5 ? 'online' : 'offline'));
          if (random() < 0.03) client.transport = ['auto', 'stream', 'poll'][random() * 3 | 0];
          if (random() < 0.03) client.subscribe('c', () => {});
          if (random() < 0.03) client.unsubscribe('c');
        },
      }));
    });
  }

  it('page stops after every message', async () => {
    const world = new World(undefined, {transport: 'auto'}), hub = new Hub(world), heard = [];
    connect(world, hub, () => 'clear', dice(1));
    world.client.subscribe('a', (k, {data}) => {
      heard.push(data);
      world.client.stop();
    }).run();
    await world.pass(1e3);
    for (let i = 0; i < 20; i++) hub.publish('a');
    for (let i = 0; i < 30; i++) {
      world.client.run();
      await world.pass(10e3);
      world.client.stop();
    }
    assert.deepEqual(heard, Array.from({length: 20}, (_, i) => `${i}`));
  });
});
