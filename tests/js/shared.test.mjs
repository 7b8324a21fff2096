// Many tabs share one connection.
import assert from 'node:assert/strict';
import {describe, it} from 'node:test';
import {Browser} from './browser.mjs';
import {Hub, dice} from './hub.mjs';
import {World, settle} from './world.mjs';

const TOPICS = ['a', 'b', 'c'];

/** A server and a browser. `fate` says what becomes of a request: true, or it fails. */
const make = (kind, fate = () => true) => {
  const world = new World(), hub = new Hub(world), browser = new Browser(world, kind);
  world.luck = 0.5;
  world.onrequest = request => {
    const alive = f => (...args) => { if (request.open) f.apply(request, args); };
    const {query} = request;
    if (request.init.method === 'POST') return;
    world.after(5, alive(() => {
      if (!fate()) return request.fail();
      if (!query.endsWith('stream=json')) return hub.poll(query, alive(answer => { request.answer(JSON.stringify(answer)); }));
      request.stream();
      hub.stream(query, alive(request.send), alive(request.end));
    }));
  };
  return {world, hub, browser};
};

/** Opens a tab that notes what it hears: topic → texts. */
const open = (browser, topics, options = {transport: 'auto'}) => {
  const tab = browser.open(options), heard = Object.fromEntries(topics.map(id => [id, []]));
  for (const id of topics) tab.client.subscribe(id, (k, {data}) => heard[id].push(+data));
  tab.client.run();
  return Object.assign(tab, {heard});
};

const openRequests = world => world.requests.filter(request => request.open);

/** The numbers from the first to the last without a hole or a repetition. */
const assertContiguous = numbers => {
  const [first = 0] = numbers;
  assert.deepEqual(numbers, numbers.map((_, i) => first + i));
};

for (const kind of ['worker', 'locks']) {
  describe(`tabs share by ${kind}`, () => {
    it('twelve tabs have one connection', async () => {
      const {world, hub, browser} = make(kind);
      const tabs = [];
      for (let i = 0; i < 12; i++) {
        tabs.push(open(browser, ['a']));
        await world.pass(1000);
      }
      assert.equal(openRequests(world).length, 1);
      hub.publish('a');
      await world.pass(100);
      for (const {heard} of tabs) assert.deepEqual(heard, {a: [0]});
    });

    it('a page that is alone keeps its connection', async () => {
      const {world, browser} = make(kind);
      open(browser, ['a']);
      await world.pass(60e3);
      assert.deepEqual(world.requests.map(({query}) => query.split('&').at(-1)), ['wait=0', 'stream=json']);
      assert.equal(browser.workers.size + browser.locks.size, 0);
    });

    it('other terms are another connection', async () => {
      const {world, browser} = make(kind);
      for (const transport of ['auto', 'poll']) for (let i = 0; i < 3; i++) open(browser, ['a'], {transport});
      open(browser, ['a'], {transport: 'auto', shared: false});
      await world.pass(5000);
      assert.equal(openRequests(world).length, 3);
    });

    it('a refused topic does not disturb the other tabs', async () => {
      const {world, hub, browser} = make(kind);
      const tabs = [open(browser, ['a']), open(browser, ['a'])];
      await world.pass(5000);
      const {onrequest} = world;
      world.onrequest = request => /bad/.test(request.url)
        ? request.answer({detail: 'no'}, {status: 403}) : onrequest(request);
      const errors = [], third = open(browser, ['bad']);
      third.client.on('error', error => errors.push(error));
      await world.pass(5000);
      hub.publish('a');
      await world.pass(100);
      for (const {heard} of tabs) assert.deepEqual(heard, {a: [0]});
      assert.deepEqual([errors[0].status, errors[0].code, third.client.state], [403, 'forbidden', 'offline']);
    });

    it('a refusal of all is told by each tab', async () => {
      const {world, browser} = make(kind);
      const tabs = [open(browser, ['a']), open(browser, ['b'])], errors = [];
      await world.pass(5000);
      for (const {client} of tabs) client.on('error', ({status}) => errors.push(status));
      const {onrequest} = world;
      world.onrequest = request => request.answer({detail: 'no'}, {status: 401});
      for (const request of openRequests(world)) request.fail();
      await world.pass(40e3);
      assert.ok(errors.filter(status => status === 401).length >= 2, `${errors}`);
      world.onrequest = onrequest;
      await world.pass(60e3);
      assert.deepEqual(tabs.map(({client}) => client.state), ['waiting', 'waiting']);
      assert.equal(openRequests(world).length, 1);
    });

    it('an outage is told to every tab, and so is its end', async () => {
      let isUp = true;
      const {world, browser} = make(kind, () => isUp);
      const tabs = [open(browser, ['a']), open(browser, ['a'])];
      await world.pass(5000);
      isUp = false;
      for (const request of openRequests(world)) request.fail();
      await world.pass(5000);
      assert.deepEqual(tabs.map(({client}) => client.state), ['offline', 'offline']);
      isUp = true;
      await world.pass(40e3);
      assert.deepEqual(tabs.map(({client}) => client.state), ['waiting', 'waiting']);
    });

    it('a tab whose topics do not fit waits alone', async () => {
      const {world, hub, browser} = make(kind), many = Array.from({length: 60}, (_, i) => `t${i}`);
      const tabs = [open(browser, many), open(browser, many), open(browser, ['a', 'b', 'c', 'd', 'e'])];
      await world.pass(5000);
      assert.equal(openRequests(world).length, 2);
      hub.publish('t7');
      hub.publish('e');
      await world.pass(100);
      assert.deepEqual([tabs[0].heard.t7, tabs[1].heard.t7, tabs[2].heard.e], [[0], [0], [0]]);
    });

    it('a host that never answers is left', async () => {
      const {world, hub, browser} = make(kind), tabs = [open(browser, ['a']), open(browser, ['a'])];
      await world.pass(5000);
      browser.channels.clear();
      for (const scope of browser.workers.values()) scope.onconnect = () => {};
      for (const tab of tabs) tab.client.stop().run();
      await world.pass(20e3);
      hub.publish('a');
      await world.pass(100);
      for (const {heard} of tabs) assert.deepEqual(heard, {a: [0]});
    });

    it('a host that ends with another tab is noticed', async () => {
      const {world, hub, browser} = make(kind), tabs = [1, 2, 3].map(() => open(browser, ['a']));
      await world.pass(5000);
      browser.endWorkers();
      tabs.shift().close();
      await world.pass(12e3);
      hub.publish('a');
      await world.pass(100);
      for (const {heard} of tabs) assert.deepEqual(heard, {a: [0]});
      assert.equal(openRequests(world).length, 1);
    });

    for (let seed = 1; seed <= 60; seed++) {
      it(`tabs come and go in any way (${seed})`, () => live(kind, seed));
    }
  });
}

/** Ten minutes of tabs that open, close, crash and freeze while the path fails now and then. */
const live = async (kind, seed) => {
  const random = dice(seed), chance = p => random() < p, pick = list => list[random() * list.length | 0];
  let isOver = false;
  const {world, hub, browser} = make(kind, () => isOver || !chance(0.03));
  const all = [], topics = () => TOPICS.filter(() => chance(0.6)).concat('a').filter((id, i, ids) => ids.indexOf(id) === i);
  const events = {
    open: () => browser.tabs.size < 8 && all.push(open(browser, topics())),
    close: tab => tab.close(),
    crash: tab => tab.crash(),
    end(tab) {
      if (chance(0.5)) browser.endWorkers();
      tab.close();
    },
    freeze(tab) {
      tab.dispatch('freeze');
      world.after(random() * 60e3, () => tab.isAlive && tab.dispatch('resume'));
    },
    stop(tab) {
      tab.client.stop();
      world.after(random() * 20e3, () => tab.client.run());
    },
    online: tab => tab.dispatch('online'),
    cut() { pick(openRequests(world))?.fail(); },
  };
  for (let i = 0; i < 300; i++) {
    const tab = pick([...browser.tabs]);
    if (!tab || chance(0.1)) events.open();
    else if (chance(0.15)) pick([events.close, events.crash, events.end, events.freeze, events.stop, events.online, events.cut])(tab);
    if (chance(0.6)) hub.publish(pick(TOPICS));
    await world.pass(random() ** 3 * 4000);
  }
  isOver = true;
  await world.pass(200e3);
  for (const id of TOPICS) hub.publish(id);
  await world.pass(30e3);
  for (const {heard} of all) Object.values(heard).forEach(assertContiguous);
  for (const {heard} of browser.tabs) {
    for (const [id, numbers] of Object.entries(heard)) assert.equal(numbers.at(-1), +hub.topics.get(id).at(-1).data);
  }
  // A tab whose hosts have ended twice in a row may wait alone.
  if (browser.tabs.size) assert.ok(openRequests(world).length <= 3, `${openRequests(world).length} connections`);
};
