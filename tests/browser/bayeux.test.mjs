// The clients of Bayeux through real servers and stores: cometd and faye of npm, also in Chromium, and aiocometd
// of PyPI. The stories of a server run several at once, each on channels of its own.
import assert from 'node:assert/strict';
import {randomBytes} from 'node:crypto';
import fs from 'node:fs/promises';
import {after, before, describe, it} from 'node:test';
import {setTimeout as sleep} from 'node:timers/promises';
import {EventSource} from 'eventsource';
import {Aiocometd, Cometd, Cutter, Faye, browser} from './bayeux.mjs';
import {Key, Redis, SOURCE, Server, launch, run, until} from './support.mjs';

const MODULES = `${SOURCE}/tests/node_modules`;
const CLIENTS = [Cometd, Faye];
const numbers = (count, from = 1) => Array.from({length: count}, (_, i) => from + i);

/** Posts messages as no client would. The replies are all that the server has at once. */
async function ask(url, more, ...messages) {
  const headers = {'Content-Type': 'application/json', ...more};
  return (await fetch(`${url}/`, {method: 'POST', headers, body: JSON.stringify(messages)})).json();
}

/** The headers of a browser that has been here before. */
const known = () => ({Cookie: `BAYEUX_BROWSER=${randomBytes(16).toString('hex')}`});

/** The error that ends the session, or undefined as long as it lives. It costs the session no time. */
async function gone(url, headers, clientId) {
  const [reply] = await ask(url, headers, {channel: '/meta/unsubscribe', clientId, subscription: '/none'});
  return /^40[12]:/.test(reply.error) && reply;
}

let chromium;
before(async () => { chromium = await launch('--host-resolver-rules=MAP *.test 127.0.0.1'); });
after(() => chromium?.close());

// More of them at once, and Redis has no turn on two cores for longer than a request waits for it.
const AT_ONCE = 8;

for (const [kind, store] of ['apache', 'lighttpd'].flatMap(kind => ['file', 'Redis'].map(store => [kind, store]))) {
  describe(`Bayeux through ${kind}, store: ${store}`, {concurrency: AT_ONCE}, () => {
    let key, redis, options, server;
    const url = (at = server) => `${at.url}/bayeux`;

    /** While its threads are busy, Apache ends connections that have no request. A POST that is on its way fails. */
    const serve = more => Server.start(kind, {...options, ...more}, kind === 'apache' ? 'KeepAlive Off\n' : '');

    before(async () => {
      key = await Key.make();
      if (store === 'Redis') redis = await Redis.start();
      options = {
        ...redis && {NOVCOMET_STORE: redis.url},
        ...kind === 'apache' && {NOVCOMET_MAX_WAITERS: 1000},
        NOVCOMET_MAX_WAITERS_PER_ADDRESS: 0, NOVCOMET_PRIVATE: '/private/*', NOVCOMET_TOKEN_KEY: key.file,
      };
      server = await serve();
      await server.serve('bayeux.html', '<!doctype html><title>Bayeux</title><script src="/faye.js"></script>');
      await server.serve('faye.js', await fs.readFile(`${MODULES}/faye/client/faye-browser-min.js`));
      await fs.cp(`${MODULES}/cometd`, `${server.root}/www/cometd`, {recursive: true});
      await server.stop();
      server.options = {...options, NOVCOMET_ORIGINS: `http://pages.test:${server.port}`};
      await server.start();
    });

    after(async () => {
      for (const one of [server, redis, key]) await one?.close();
    });

    /** What it opens is closed at its end, the last first. */
    const story = (name, tell) => it(name, {timeout: 60e3}, async () => {
      const opened = [], failures = [], note = error => failures.push(error);
      await tell(async one => opened[opened.push(await one) - 1]).catch(note);
      for (const one of opened.reverse()) await Promise.resolve(one.close()).catch(note);
      if (failures.length) throw failures[0];
    });

    const ofEach = (name, tell) => {
      for (const Client of CLIENTS) story(`${Client.name} ${name}`, open => tell(open, Client, `/${Client.name}/${name.replace(/\W/g, '-')}`));
    };

    ofEach('begins and ends a session', async (open, Client) => {
      const headers = known();
      const client = await open(Client.start(url(), {headers}));
      assert.match(client.session, /^[^:]{20,}$/);
      assert.equal(await gone(url(), headers, client.session), false);
      await client.close();
      const [reply] = await ask(url(), headers, {channel: '/meta/connect', clientId: client.session, connectionType: 'long-polling', id: 'x'});
      assert.deepEqual([reply.channel, reply.id, reply.successful, reply.advice.reconnect], ['/meta/connect', 'x', false, 'handshake']);
    });

    ofEach('publishes, subscribes and unsubscribes', async (open, Client, channel) => {
      const [one, other] = await Promise.all([1, 2].map(() => open(Client.start(url()))));
      await one.publish(channel, 'before');
      await one.subscribe(channel);
      await other.publish(channel, 'by the other');
      const all = ['text', 1.5, true, null, [1, [2]], {a: {b: 'ä€😀'}}];
      for (const data of all) await one.publish(channel, data);
      await until(() => one.heard.length === 7);
      await one.subscribe(`${channel}/end`);
      await one.unsubscribe(channel);
      await other.publish(channel, 'after');
      await other.publish(`${channel}/end`, 'end');
      await one.hears('end');
      assert.deepEqual(one.data(), ['by the other', ...all, 'end']);
      assert.deepEqual(other.data(), []);
    });

    ofEach('subscribes by wildcards', async (open, Client, root) => {
      const [segment, deep, publisher] = await Promise.all([1, 2, 3].map(() => open(Client.start(url()))));
      await segment.subscribe(`${root}/a/*`);
      await deep.subscribe(`${root}/a/**`);
      for (const one of [segment, deep]) await one.subscribe(`${root}/end`);
      for (const name of ['a', 'a/b', 'a/b/c', 'b/a', 'a/d', 'end']) await publisher.publish(`${root}/${name}`, name);
      for (const one of [segment, deep]) await one.hears('end');
      const heard = one => one.heard.map(({channel}) => channel.slice(root.length + 1));
      assert.deepEqual(heard(segment), ['a/b', 'a/d', 'end']);
      assert.deepEqual(heard(deep), ['a/b', 'a/b/c', 'a/d', 'end']);
    });

    ofEach('sends a batch in one request', async (open, Client, channel) => {
      const client = await open(Client.start(url()));
      await client.batch(() => [client.subscribe(channel), ...numbers(8).map(i => client.publish(channel, i))]);
      await client.hears(8);
      assert.deepEqual(client.data(), numbers(8));
    });

    ofEach('publishes to a service, which nobody hears', async (open, Client) => {
      const client = await open(Client.start(url()));
      const end = `/${Client.name}/service`;
      const listener = await open(Client.start(url()));
      await listener.subscribe('/service/**').catch(() => {});   // CometD allows it, and others need not
      await listener.subscribe(end);
      await client.publish('/service/echo', 'for the server');
      await client.publish(end, 'end');
      await listener.hears('end');
      assert.deepEqual(listener.data(), ['end']);
    });

    story('200 messages at random gaps are heard once and in order', async open => {
      const listeners = await Promise.all([[Cometd], [Cometd, {ack: false}], [Faye]]
        .map(([Client, how]) => open(Client.start(url(), how))));
      for (const one of listeners) await one.subscribe('/gaps/*');
      const publisher = await open(Cometd.start(url()));
      const published = [];
      for (const i of numbers(200)) {
        published.push(publisher.publish(`/gaps/${i % 3}`, i));
        if (Math.random() < .5) await sleep(Math.random() * 20);
      }
      await Promise.all(published);
      for (const one of listeners) await until(() => one.heard.length >= 200, 'all 200');
      for (const one of listeners) assert.deepEqual(one.data(), numbers(200));
    });

    story('acknowledged messages survive connections that are cut', async open => {
      const cutter = await open(Cutter.start(server));
      const listener = await open(Cometd.start(url(cutter)));
      await listener.subscribe('/cut');
      let answers = 0;
      cutter.amid = part => part.includes('/meta/connect') && ++answers % 3 === 0;
      for (const i of numbers(60)) await server.publish('/cut', i);
      await listener.hears(60);
      assert.deepEqual(listener.data(), numbers(60));
      assert.ok(cutter.number > 0, 'none was cut');
      assert.equal(listener.sessions.length, 1);
      cutter.amid = () => false;
    });

    story('Faye continues its session when connections are cut', async open => {
      const cutter = await open(Cutter.start(server));
      const listener = await open(Faye.start(url(cutter)));
      await listener.subscribe('/cut/faye');
      let number = 0;
      for (const round of numbers(3)) {
        const {length} = listener.heard;
        cutter.cut(false);
        // Faye has no acknowledgements. What is on its way to the connection that was cut is lost.
        await until(async () => {
          await server.publish('/cut/faye', ++number);
          return listener.heard.length > length;
        }, `Faye hears something after cut ${round}`);
      }
      assert.equal(listener.sessions.length, 1);
      for (const [i, data] of listener.data().entries()) assert.ok(i === 0 || data > listener.data()[i - 1], listener.data());
    });

    story('sessions survive a restart of the server', async open => {
      // Apache takes ten seconds to end if a CGI program has begun after its signal.
      const own = await open(serve({NOVCOMET_BAYEUX_MAX_INTERVAL: 60}));
      const cometd = await open(Cometd.start(url(own))), listener = await open(Faye.start(url(own)));
      for (const one of [cometd, listener]) await one.subscribe('/restart/marks');
      await cometd.subscribe('/restart/stream');
      await own.publishBeside('/restart/marks', '"before"');
      await listener.hears('before');
      const stream = (async () => {
        for (const i of numbers(40)) await own.publishBeside('/restart/stream', i);
      })();
      await own.stop();
      // A process that is still there would answer a connection that is gone. Faye cannot tell.
      await until(() => own.isDeserted(), 'the processes of the server end');
      await own.publishBeside('/restart/marks', '"meanwhile"');
      await own.start();
      await stream;
      await own.publishBeside('/restart/marks', '"after"');
      await cometd.hears(40);
      for (const one of [cometd, listener]) await one.hears('after');
      for (const one of [cometd, listener]) assert.deepEqual(one.data('/restart/marks'), ['before', 'meanwhile', 'after']);
      assert.deepEqual(cometd.data('/restart/stream'), numbers(40));
      for (const one of [cometd, listener]) assert.equal(one.sessions.length, 1);
    });

    if (store === 'Redis') story('clients return when Redis was silent', async open => {
      const silent = await open(Redis.start());
      const own = await open(serve({NOVCOMET_STORE: silent.url}));
      const clients = await Promise.all(CLIENTS.map(Client => open(Client.start(url(own)))));
      for (const one of clients) await one.subscribe('/silent');
      silent.child.kill('SIGSTOP');
      for (const one of clients) await until(() => one.failed, 'a connect fails');
      silent.child.kill('SIGCONT');
      for (const one of clients) await one.publish('/silent', one.constructor.name);
      for (const one of clients) for (const {name} of CLIENTS) await one.hears(name);
      for (const one of clients) assert.equal(one.sessions.length, 1);
    });

    story('clients whose session has expired begin another', async open => {
      const own = await open(serve({NOVCOMET_BAYEUX_MAX_INTERVAL: 3, NOVCOMET_BAYEUX_TIMEOUT: 1}));
      const cutter = await open(Cutter.start(own));
      const headers = CLIENTS.map(known);
      const clients = await Promise.all(CLIENTS.map((Client, i) => open(Client.start(url(cutter), {headers: headers[i]}))));
      for (const one of clients) await one.subscribe('/expired');
      cutter.cut(true);
      for (const [i, one] of clients.entries()) await until(() => gone(url(own), headers[i], one.session), 'the session expires');
      cutter.cut(false);
      for (const one of clients) await until(() => one.sessions.length > 1, 'another handshake');
      // On a busy machine, three seconds may be too short for the other session, too.
      await until(async () => {
        await Promise.all(clients.map(one => one.publish('/expired', one.constructor.name).catch(() => {})));
        return clients.every(one => new Set(one.data()).size === CLIENTS.length);
      }, 'all hear all');
      for (const one of clients) assert.equal(new Set(one.sessions).size, one.sessions.length);
    });

    story('30 clients hear each other', async open => {
      const clients = await Promise.all(numbers(30).map(i => open(CLIENTS[i % 2].start(url()))));
      await Promise.all(clients.map(one => one.subscribe('/crowd')));
      await Promise.all(clients.map((one, i) => one.publish('/crowd', i + 1)));
      for (const one of clients) await until(() => one.heard.length >= 30, 'all 30');
      const first = clients[0].data();
      assert.deepEqual([...first].sort((a, b) => a - b), numbers(30));
      for (const one of clients) assert.deepEqual(one.data(), first);
    });

    story('one room for Bayeux, Mercure, our own client, curl and touch', async open => {
      const room = '/mixed/room', topic = encodeURIComponent(room);
      const bayeux = await Promise.all(CLIENTS.map(Client => open(Client.start(url()))));
      for (const one of bayeux) await one.subscribe(room);
      const bearer = {Authorization: `Bearer ${key.token({publish: ['*'], subscribe: ['*']})}`};
      const streams = await Promise.all([`/.well-known/mercure?topic=${topic}`, `/comet.cgi?subscribed[${topic}]=0&stream=1&named=0`]
        .map(async path => {
          const source = await open(new EventSource(server.url + path, {
            fetch: (input, init) => fetch(input, {...init, headers: {...init.headers, ...bearer}}),
          }));
          source.heard = [];
          source.onmessage = event => source.heard.push(event.data);
          await until(() => source.readyState === 1);
          return source;
        }));

      await bayeux[0].publish(room, {from: 'cometd'});
      await bayeux[1].publish(room, 'faye');
      await server.publish(room, 'our client, and "no" JSON');
      await run('curl', ['-sf', `${server.url}/comet.cgi`, '-d', `publish=${topic}`, '-d', 'data=[1, 2]']);
      const body = new URLSearchParams({topic: room, data: '{"from":"Mercure"}'});
      assert.equal((await fetch(`${server.url}/.well-known/mercure`, {method: 'POST', headers: bearer, body})).status, 200);
      if (redis) await server.publish(room);
      else await server.touch(topic);
      // A message right after it would be the same event for those who have not looked yet.
      for (const one of streams) await until(() => one.heard.includes(''));
      for (const one of bayeux) await one.hears(null);
      await bayeux[1].publish(room, 'end');

      const texts = ['{"from":"cometd"}', '"faye"', 'our client, and "no" JSON', '[1, 2]', '{"from":"Mercure"}', '', '"end"'];
      for (const one of streams) await until(() => one.heard.includes('"end"'));
      for (const one of streams) assert.deepEqual(one.heard, texts);
      const data = [{from: 'cometd'}, 'faye', 'our client, and "no" JSON', [1, 2], {from: 'Mercure'}, null, 'end'];
      for (const one of bayeux) await one.hears('end');
      for (const one of bayeux) assert.deepEqual(one.data(), data);
    });

    ofEach('subscribes to a private channel by its token', async (open, Client) => {
      const channel = `/private/${Client.name}`;
      const token = key.token({publish: [channel], subscribe: [channel]});
      const granted = await Promise.all([{headers: {Authorization: `Bearer ${token}`}}, {handshake: {ext: {token}}}]
        .map(how => open(Client.start(url(), how))));
      const other = await open(Client.start(url(), {headers: {Authorization: `Bearer ${key.token({subscribe: ['/private/x']})}`}}));
      const nobody = await open(Client.start(url()));
      for (const one of granted) await one.subscribe(channel);
      for (const one of [other, nobody]) {
        await assert.rejects(async () => one.subscribe(channel), /403/);
        await one.subscribe('/**');
      }
      await granted[0].publish(channel, 'secret');
      await granted[0].publish(`/${Client.name}/end`, 'end');
      for (const one of granted) await one.hears('secret');
      for (const one of [other, nobody]) await one.hears('end');
      for (const one of [other, nobody]) assert.deepEqual(one.data(channel), []);
    });

    ofEach('is refused with a token that is none', async (open, Client) => {
      await assert.rejects(async () => open(Client.start(url(), {handshake: {ext: {token: 'a.b.c'}}})), /40[13]/);
    });

    story('cometd falls back to long polling from a WebSocket', async open => {
      const client = await open(Cometd.start(url(), {websocket: true}));
      assert.equal(client.cometd.getTransport().type, 'long-polling');
      await client.subscribe('/fallback');
      await client.publish('/fallback', 'heard');
      await client.hears('heard');
      assert.equal(client.sessions.length, 1);
    });

    story('two clients with the same cookies hear all', async open => {
      const requests = browser();
      const tabs = [await open(Cometd.start(url(), {requests})), await open(Cometd.start(url(), {requests}))];
      for (const tab of tabs) await tab.subscribe('/cookies');
      for (const i of numbers(5)) await tabs[i % 2].publish('/cookies', i);
      for (const tab of tabs) await tab.hears(5);
      for (const tab of tabs) assert.deepEqual(tab.data(), numbers(5));
    });

    /** A page with cometd and faye as they are shipped, so both try a WebSocket. */
    async function join(context, site, channel) {
      const page = await context.newPage();
      await page.goto(`http://${site}:${server.port}/bayeux.html`);
      page.answer = await page.evaluate(async ([url, channel]) => {
        const {CometD} = await import('/cometd/cometd.js');
        const heard = window.heard = {cometd: [], faye: []};
        const cometd = window.cometd = new CometD();
        cometd.configure({url, logLevel: 'warn'});
        const reply = await new Promise(done => cometd.handshake({}, reply => {
          if (reply.failure?.connectionType !== 'websocket') done(reply);
        }));
        if (!reply.successful) return 'refused';
        await new Promise(done => cometd.subscribe(channel, ({data}) => heard.cometd.push(data), {}, done));
        // For a server of another origin, Faye begins with JSONP and nothing else.
        if (!url.startsWith(location.origin)) return 'subscribed';
        const client = new window.Faye.Client(url);
        await client.subscribe(channel, data => heard.faye.push(data));
        return 'subscribed';
      }, [url(), channel]);
      return page;
    }

    const heard = (page, client) => page.evaluate(client => window.heard[client], client);

    story('two tabs of a browser hear all', async open => {
      const context = await open(chromium.newContext());
      const tabs = [await join(context, '127.0.0.1', '/tabs'), await join(context, '127.0.0.1', '/tabs')];
      const advised = () => Promise.all(tabs.map(tab => tab.evaluate(() => window.cometd.getAdvice()['multiple-clients'] === true)));
      await until(async () => (await advised()).includes(true), 'advice for several clients');
      for (const i of numbers(5)) await server.publish('/tabs', i);
      for (const tab of tabs) {
        for (const client of ['cometd', 'faye']) {
          await until(async () => (await heard(tab, client)).length >= 5, `the ${client} of a tab`);
          assert.deepEqual(await heard(tab, client), numbers(5));
        }
      }
    });

    story('page of another origin is served if the origin is named', async open => {
      const context = await open(chromium.newContext());
      const named = await join(context, 'pages.test', '/origins');
      assert.equal(named.answer, 'subscribed');
      await server.publish('/origins', 'heard');
      await until(async () => (await heard(named, 'cometd')).length);
      const evil = await join(context, 'evil.test', '/origins');
      assert.equal(evil.answer, 'refused');
      await evil.evaluate(async url => {
        const message = JSON.stringify([{channel: '/origins', data: 'evil'}]);
        await fetch(url, {method: 'POST', mode: 'no-cors', body: new URLSearchParams({message})});
      }, url());
      await server.publish('/origins', 'end');
      await until(async () => (await heard(named, 'cometd')).includes('end'));
      assert.deepEqual(await heard(named, 'cometd'), ['heard', 'end']);
    });

    story('aiocometd of Python talks to cometd and faye', async open => {
      const [python, ...others] = await Promise.all([Aiocometd, ...CLIENTS].map(Client => open(Client.start(url()))));
      for (const one of others) await one.subscribe('/python/a');
      await python.subscribe('/python/*');
      for (const one of others) await one.publish('/python/a', {from: one.constructor.name});
      await python.publish('/python/a', ['ä', null]);
      await until(() => python.heard.length >= 3, 'Python hears all');
      await python.unsubscribe('/python/*');
      await python.publish('/python/a', 'end');
      for (const one of others) await one.hears('end');
      const first = [{from: 'Cometd'}, {from: 'Faye'}, ['ä', null]];
      assert.deepEqual(python.data(), first);
      for (const one of others) assert.deepEqual(one.data(), [...first, 'end']);
    });
  });
}
