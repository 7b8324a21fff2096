// The effect of an answer on the page is the same for polls and for streams.
import assert from 'node:assert/strict';
import {describe, it} from 'node:test';
import {World, settle} from './world.mjs';

/** Each returns a world that is subscribed to `ids` from 5.5 on. `bring` passes an answer to it. */
const transports = {
  async poll(...ids) {
    const world = new World(undefined, {transport: 'poll'}), heard = listen(world);
    await world.wait(...ids);
    const bring = async answer => {
      await world.last.answer(answer);
      await world.pass(200);
    };
    return {world, heard, bring};
  },

  async stream(...ids) {
    const world = new World(undefined, {transport: 'stream'}), heard = listen(world);
    await world.flow(...ids);
    return {world, heard, bring: answer => world.last.say(answer)};
  },
};

/** The values that the callbacks get, as [topic, data, cursor], and `true` after a gap. */
const listen = world => {
  const heard = [];
  world.hear = (k, {id, data, cursor, gap, ...more}) => {
    assert.deepEqual(more, {});
    heard.push(gap ? [id, data, cursor, gap] : [id, data, cursor]);
    assert.equal(gap, heard.at(-1).length === 4);
  };
  return heard;
};

/** The cursors of the next request, by any transport. */
const next = async world => {
  world.client.stop().run();
  await settle();
  return world.last.query.replace(/&(wait=\d+|stream=json)$/, '');
};

for (const [transport, start] of Object.entries(transports)) {
  describe(`messages by ${transport}`, () => {
    it('messages come in order', async () => {
      const {world, heard, bring} = await start('a', 'b');
      await bring({s: 1, k: {b: 7.5, a: 6.7}, m: {
        a: [{id: 6.5, data: 'one'}, {id: 6.6, data: ''}, {id: 6.7, data: 'zwei\r\n€ \u2028"'}],
        b: [{id: 7.5, data: 'b'}],
      }});
      assert.deepEqual(heard, [
        ['b', 'b', 7.5], ['a', 'one', 6.5], ['a', '', 6.6], ['a', 'zwei\r\n€ \u2028"', 6.7],
      ]);
      assert.equal(await next(world), 'subscribed[a]=6.7&subscribed[b]=7.5');
    });

    it('callback gets k as in 2011', async () => {
      const {world, bring} = await start('a');
      const seen = [], k = {a: 6.6};
      world.client.subscribe('a', (...args) => seen.push(args));
      await bring({s: 1, k, m: {a: [{id: 6.5, data: 'one'}]}});
      assert.deepEqual(seen.map(([k, event]) => [k, {...event}]), [
        [k, {id: 'a', cursor: 6.5, data: 'one', gap: false}],
        [k, {id: 'a', cursor: 6.6, data: undefined, gap: false}],
      ]);
    });

    it('event without message follows the messages', async () => {
      const {world, heard, bring} = await start('a', 'b');
      await bring({s: 1, k: {a: 8.5, b: 6.5}, m: {a: [{id: 6.5, data: 'one'}, {id: 7.5, data: 'two'}]}});
      assert.deepEqual(heard, [['a', 'one', 6.5], ['a', 'two', 7.5], ['a', undefined, 8.5], ['b', undefined, 6.5]]);
      assert.equal(await next(world), 'subscribed[a]=8.5&subscribed[b]=6.5');
    });

    it('repeated messages are delivered once', async () => {
      const {heard, bring} = await start('a');
      const m = {a: [{id: 6.5, data: 'one'}, {id: 7.5, data: 'two'}]};
      await bring({s: 1, k: {a: 6.5}, m: {a: m.a.slice(0, 1)}});
      await bring({s: 1, k: {a: 7.5}, m});
      await bring({s: 1, k: {a: 7.5}, m});
      assert.deepEqual(heard, [['a', 'one', 6.5], ['a', 'two', 7.5]]);
    });

    it('many messages come in parts', async () => {
      const {world, heard, bring} = await start('a');
      const all = Array.from({length: 100}, (_, i) => ({id: 6 + (i + 1) / 1024, data: `${i}`}));
      for (let i = 0; i < 100; i += 25) {
        const part = all.slice(i, i + 25);
        await bring({s: 1, k: {a: part.at(-1).id}, m: {a: part}});
      }
      assert.deepEqual(heard, all.map(({id, data}) => ['a', data, id]));
      assert.equal(await next(world), `subscribed[a]=${all.at(-1).id}`);
    });

    it('gap is reported once', async () => {
      const {heard, bring} = await start('a', 'b');
      const m = {a: [{id: 8.5, data: 'one'}, {id: 9.5, data: 'two'}], b: [{id: 6.5, data: 'b'}]};
      await bring({s: 1, k: {a: 9.5, b: 6.5}, m, gap: ['a']});
      assert.deepEqual(heard, [['a', 'one', 8.5, true], ['a', 'two', 9.5], ['b', 'b', 6.5]]);
      await bring({s: 1, k: {a: 10.5}, m: {a: [{id: 10.5, data: 'three'}]}});
      assert.deepEqual(heard.at(-1), ['a', 'three', 10.5]);
    });

    it('recreated topic starts from its beginning', async () => {
      const {world, heard, bring} = await start('a');
      await bring({s: 1, k: {a: 9.5}, m: {a: [{id: 9.5, data: 'old'}]}});
      await bring({s: 1, k: {a: 2.5}, m: {a: [{id: 1.5, data: 'new'}, {id: 2.5, data: 'newer'}]}, gap: ['a']});
      await bring({s: 1, k: {a: 3.5}, m: {a: [{id: 3.5, data: 'newest'}]}});
      assert.deepEqual(heard, [
        ['a', 'old', 9.5], ['a', 'new', 1.5, true], ['a', 'newer', 2.5], ['a', 'newest', 3.5],
      ]);
      assert.equal(await next(world), 'subscribed[a]=3.5');
    });

    it('gap without messages is an event', async () => {
      const {world, heard, bring} = await start('a');
      await bring({s: 1, k: {a: 2.5}, gap: ['a']});
      assert.deepEqual(heard, [['a', undefined, 2.5, true]]);
      assert.equal(await next(world), 'subscribed[a]=2.5');
    });

    it('timeout delivers nothing', async () => {
      const {world, heard, bring} = await start('a', 'b');
      await bring({s: 0, k: {a: 6.5, b: 5.5}});
      assert.deepEqual(heard, []);
      assert.equal(await next(world), 'subscribed[a]=6.5&subscribed[b]=5.5');
    });

    it('any topic name gets its own messages', async () => {
      const ids = ['__proto__', 'constructor', 'toString', ''], {heard, bring} = await start(...ids);
      const each = f => `{${ids.map(id => `${JSON.stringify(id)}:${f(id)}`)}}`;
      await bring(`{"s":1,"k":${each(() => 6.5)},"m":{}}`);
      assert.deepEqual(heard.splice(0), ids.map(id => [id, undefined, 6.5]));
      const m = each(id => JSON.stringify([{id: 7.5, data: id}]));
      await bring(`{"s":1,"k":${each(() => 7.5)},"m":${m.replace('{', '{"stranger":[{"id":9.5,"data":"?"}],')}}`);
      assert.deepEqual(heard, ids.map(id => [id, id, 7.5]));
    });

    it('stop in a callback loses no message', async () => {
      const {world, heard, bring} = await start('a', 'b');
      world.client.subscribe('a', (k, {data}) => {
        heard.push(data);
        if (data === 'two') world.client.stop();
      });
      const m = {a: ['one', 'two', 'three'].map((data, i) => ({id: 6.5 + i, data})), b: [{id: 7.5, data: 'b'}]};
      await bring({s: 1, k: {a: 9.5, b: 7.5}, m});
      assert.deepEqual(heard, ['one', 'two']);
      assert.equal(world.client.state, 'stopped');
      assert.equal(await next(world), 'subscribed[a]=7.5&subscribed[b]=5.5');
    });

    it('stop and run in a callback continue', async () => {
      const {world, heard, bring} = await start('a');
      world.client.subscribe('a', (k, {data}) => {
        heard.push(data);
        world.client.stop().run();
      });
      await bring({s: 1, k: {a: 7.5}, m: {a: [{id: 6.5, data: 'one'}, {id: 7.5, data: 'two'}]}});
      assert.deepEqual(heard, ['one', 'two']);
      await world.pass(200);
      assert.match(world.last.query, /^subscribed\[a\]=7\.5&/);
      assert.equal(world.requests.filter(({open}) => open).length, 1);
    });

    it('unsubscribe in a callback ends one topic', async () => {
      const {world, heard, bring} = await start('a', 'b');
      world.client.subscribe('a', (k, {data}) => {
        heard.push(data);
        world.client.unsubscribe('a');
      });
      await bring({s: 1, k: {a: 7.5, b: 6.5}, m: {a: [{id: 6.5, data: 'one'}, {id: 7.5, data: 'two'}]}});
      assert.deepEqual(heard, ['one', ['b', undefined, 6.5]]);
      assert.equal(await next(world), 'subscribed[b]=6.5');
    });

    it('new subscription gets no older messages', async () => {
      const {world, heard, bring} = await start('a');
      world.client.subscribe('a', (k, {data}) => {
        heard.push(data);
        world.client.unsubscribe('a').subscribe('a', (k, {data}) => heard.push(`new: ${data}`), 6.75);
      });
      await bring({s: 1, k: {a: 7.5}, m: {a: [{id: 6.5, data: 'one'}, {id: 7.5, data: 'two'}]}});
      assert.deepEqual(heard, ['one']);
      assert.equal(await next(world), 'subscribed[a]=6.75');
    });

    it('replaced callback gets the next message', async () => {
      const {world, heard, bring} = await start('a');
      world.client.subscribe('a', (k, {data}) => {
        heard.push(data);
        world.client.subscribe('a', (k, {data}) => heard.push(`new: ${data}`));
      });
      await bring({s: 1, k: {a: 7.5}, m: {a: [{id: 6.5, data: 'one'}, {id: 7.5, data: 'two'}]}});
      assert.deepEqual(heard, ['one', 'new: two']);
    });

    it('callback that throws gets every message', async () => {
      const {world, heard, bring} = await start('a');
      world.client.subscribe('a', (k, {data}) => {
        heard.push(data);
        throw new Error(data);
      });
      await bring({s: 1, k: {a: 7.5}, m: {a: [{id: 6.5, data: 'one'}, {id: 7.5, data: 'two'}]}});
      assert.deepEqual(heard, ['one', 'two']);
      assert.deepEqual(world.errors.map(({message}) => message), ['one', 'two']);
      assert.equal(world.client.state, 'waiting');
    });

    it('earliest gets the stored messages', async () => {
      const world = new World(undefined, {transport}), heard = listen(world);
      world.client.subscribe('a', world.hear, 'earliest').run();
      await settle();
      assert.match(world.last.query, /^subscribed\[a\]=earliest&/);
      if (transport === 'stream') await world.begin({a: 0.1});
      const answer = {s: 1, k: {a: 7.5}, m: {a: [{id: 6.5, data: 'one'}, {id: 7.5, data: 'two'}]}};
      await (transport === 'stream' ? world.last.say(answer) : world.last.answer(answer));
      assert.deepEqual(heard, [['a', 'one', 6.5], ['a', 'two', 7.5]]);
      assert.equal(await next(world), 'subscribed[a]=7.5');
    });
  });
}
