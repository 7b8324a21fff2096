// The clients of Mercure through real servers: symfony/mercure's requests, the EventSource of npm and of a browser,
// fetch-event-source, and curl.
import assert from 'node:assert/strict';
import {createHmac, randomBytes} from 'node:crypto';
import fs from 'node:fs/promises';
import os from 'node:os';
import {after, before, beforeEach, describe, it} from 'node:test';
import {EventSource} from 'eventsource';
import {SOURCE, Server, launch, run, until} from './support.mjs';

const HUB = '/.well-known/mercure', URL_OF_HUB = 'https://hub.example/.well-known/mercure';
const base64url = value => Buffer.from(value).toString('base64url');

const sign = (secret, header, claims) => {
  const text = [{alg: 'HS256', ...header}, claims].map(part => base64url(JSON.stringify(part))).join('.');
  return `${text}.${base64url(createHmac('sha256', secret).update(text).digest())}`;
};
const exp = (seconds = 600) => Math.floor(Date.now() / 1e3) + seconds;

/** A token of 0.x, as symfony/mercure makes it. */
const first = (secret, mercure, seconds) => sign(secret, {typ: 'JWT'}, {exp: exp(seconds), mercure});

/** A token of 1.0. */
const second = (secret, actions, topics) => sign(secret, {typ: 'at+jwt'}, {
  exp: exp(), aud: URL_OF_HUB,
  authorization_details: [{type: 'https://mercure.rocks/authorization-detail', actions, topics}],
});

for (const kind of ['apache', 'lighttpd']) {
  describe(`Mercure through ${kind}`, () => {
    let keys, secret, server, browser, page;
    const sources = [];

    before(async () => {
      keys = await fs.mkdtemp(`${os.tmpdir()}/novcomet-mercure.`);
      await fs.chmod(keys, 0o755);
      secret = randomBytes(32).toString('hex');
      await fs.writeFile(`${keys}/key`, secret, {mode: 0o640});
      if (process.getuid() === 0) await run('chgrp', ['www-data', `${keys}/key`]);
      server = await Server.start(kind, {NOVCOMET_TOKEN_KEY: `${keys}/key`, NOVCOMET_MERCURE_URL: URL_OF_HUB});
      for (const name of ['fetch', 'index', 'parse']) {
        const file = `${SOURCE}/tests/node_modules/@microsoft/fetch-event-source/lib/esm/${name}.js`;
        const module = (await fs.readFile(file, 'utf8')).replace(/from '(\.\/\w+)'/g, "from '$1.js'");
        await server.serve(`${name}.js`, module);
      }
      browser = await launch();
      page = await browser.newPage();
    });

    after(async () => {
      await browser?.close();
      await server?.close();
      await fs.rm(keys, {recursive: true, force: true});
    });

    beforeEach(async () => {
      for (const source of sources.splice(0)) source.close();
      await server.empty();
    });

    const hub = query => `${server.url}${HUB}?${new URLSearchParams(query)}`;
    const all = {publish: ['*'], subscribe: ['*']};

    /** src/Hub.php: the bearer, the type, and the fields in this order. Those that are null are left out. */
    async function publish(update, token = first(secret, all)) {
      const fields = Object.entries({...update, private: update.private ? 'on' : null})
        .flatMap(([name, value]) => [value ?? []].flat().map(one => [name, one]));
      const headers = {Authorization: `Bearer ${token}`, 'Content-Type': 'application/x-www-form-urlencoded', Accept: '*/*'};
      return fetch(`${server.url}${HUB}`, {method: 'POST', headers, body: String(new URLSearchParams(fields))});
    }

    /** The EventSource of npm, with a token in its header. */
    async function listen(query, token = first(secret, all), types = ['message']) {
      const heard = [];
      const source = new EventSource(hub(query), {
        fetch: (input, init) => fetch(input, {...init, headers: {...init.headers, Authorization: `Bearer ${token}`}}),
      });
      sources.push(source);
      for (const type of types) source.addEventListener(type, ({type, data, lastEventId}) => heard.push({type, data, lastEventId}));
      await until(() => source.readyState === 1);
      return {source, heard, data: () => heard.map(one => one.data)};
    }

    it('update of Symfony reaches an EventSource by topic, template and star', async () => {
      const topic = 'https://example.com/books/1';
      const listeners = await Promise.all([topic, 'https://example.com/books/{id}', '*', 'https://example.com/authors/{id}']
        .map(one => listen({topic: one}, undefined, ['book'])));
      const answer = await publish({topic, data: '{"status":"sold"}', id: 'urn:uuid:5e94c686', type: 'book'});
      assert.deepEqual([answer.status, await answer.text()], [200, 'urn:uuid:5e94c686']);
      const event = {type: 'book', data: '{"status":"sold"}', lastEventId: 'urn:uuid:5e94c686'};
      for (const {heard} of listeners.slice(0, 3)) {
        await until(() => heard.length);
        assert.deepEqual(heard, [event]);
      }
      assert.deepEqual(listeners[3].heard, []);
    });

    it('matchers of 1.0 select as well', async () => {
      const token = second(secret, ['subscribe', 'publish'], [{match: '*'}]);
      const query = {match: 'https://example.com/a', match_urlpattern: 'https://example.com/books/:id'};
      const {data} = await listen(query, token);
      for (const name of ['a', 'b', 'books/1', 'books/1/2']) {
        assert.equal((await publish({topic: `https://example.com/${name}`, data: name}, token)).status, 200);
      }
      await publish({topic: 'https://example.com/a', data: 'end'}, token);
      await until(() => data().includes('end'));
      assert.deepEqual(data(), ['a', 'books/1', 'end']);
    });

    it('update with several topics is heard once', async () => {
      const {data} = await listen([['topic', 'a'], ['topic', 'b']]);
      await publish({topic: ['a', 'b', 'c'], data: 'once'});
      await publish({topic: ['c', 'b'], data: 'end'});
      await until(() => data().includes('end'));
      assert.deepEqual(data(), ['once', 'end']);
    });

    it('cursor of the Twig helper continues, and a header goes before it', async () => {
      const ids = [];
      for (const data of ['one', 'two', 'three']) ids.push(await (await publish({topic: 'a', data})).text());
      const both = {topic: 'a', lastEventID: ids[0], 'Last-Event-ID': ids[0]};
      const {data} = await listen(both);
      await until(() => data().length === 2);
      assert.deepEqual(data(), ['two', 'three']);
      const headers = {Authorization: `Bearer ${first(secret, all)}`, 'Last-Event-ID': ids[1]};
      const answer = await fetch(hub(both), {headers});
      assert.equal(answer.headers.get('Last-Event-ID'), ids[1]);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      while (!text.includes('three')) text += (await reader.read()).value;
      assert.ok(!text.includes('two'), text);
      await reader.cancel();
      const unknown = await fetch(hub({topic: 'a', lastEventID: 'urn:uuid:unknown'}), {headers: {Authorization: headers.Authorization}});
      assert.equal(unknown.headers.get('Last-Event-ID'), 'earliest');
      await unknown.body.cancel();
    });

    it('nothing is lost while the server restarts', async () => {
      const {data} = await listen({topic: 'room/{id}'});
      await publish({topic: 'room/1', data: 'before'});
      await until(() => data().length === 1);
      await server.stop();
      await server.publishBeside('room/2', 'meanwhile');
      await server.start();
      // A connection of before is reset.
      await until(() => publish({topic: 'room/3', data: 'after'}).catch(() => undefined));
      await until(() => data().length === 3);
      assert.deepEqual(data(), ['before', 'meanwhile', 'after']);
    });

    it('private updates need a grant for one of their topics', async () => {
      const granted = await listen({topic: '*'}, first(secret, {subscribe: ['secret', 'end']}));
      const other = await listen({topic: '*'}, first(secret, {subscribe: ['other', 'end']}));
      await publish({topic: 'other', data: 'public'});
      await publish({topic: ['canonical', 'secret'], data: 'for some', private: true});
      await publish({topic: 'end', data: 'end'});
      for (const one of [granted, other]) await until(() => one.data().includes('end'));
      assert.ok(granted.data().includes('for some') && !other.data().includes('for some'));
    });

    it('one set of topics for all', async () => {
      const {data} = await listen({topic: '*'});
      await page.goto(`${server.url}/client.html`);
      await page.evaluate(() => {
        window.heard = [];
        const source = new window.EventSource('/comet.cgi?subscribed[news]=0&stream=1&named=0');
        source.onmessage = event => window.heard.push(event.data);
        return new Promise(done => source.onopen = done);
      });
      await publish({topic: 'news', data: 'from Symfony'});
      await server.publish('news', 'from our client');
      await until(() => page.evaluate(() => window.heard.length === 2));
      await server.touch('touched');
      // A `touch` that creates the file sets its time twice, and may be told twice.
      await until(() => data().includes(''));
      assert.deepEqual([...new Set(data())], ['from Symfony', 'from our client', '']);
    });

    it('EventSource of a browser subscribes by the cookie', async () => {
      const context = await browser.newContext();
      const value = first(secret, {subscribe: ['secret']});
      await context.addCookies([{name: 'mercureAuthorization', value, url: server.url, sameSite: 'Strict'}]);
      const own = await context.newPage();
      await own.goto(`${server.url}/client.html`);
      await own.evaluate(path => {
        window.heard = [];
        const source = new window.EventSource(`${path}?topic=secret`, {withCredentials: true});
        source.onmessage = event => window.heard.push(event.data);
        return new Promise(done => source.onopen = done);
      }, HUB);
      await publish({topic: 'secret', data: 'by cookie', private: true});
      await until(() => own.evaluate(() => window.heard.length));
      assert.deepEqual(await own.evaluate(() => window.heard), ['by cookie']);
      await context.close();
    });

    it('fetch-event-source subscribes by the header', async () => {
      await page.goto(`${server.url}/client.html`);
      await page.evaluate(async ([path, token]) => {
        const {fetchEventSource} = await import('/index.js');
        window.heard = [];
        await new Promise(onopen => {
          fetchEventSource(`${path}?topic=a`, {
            headers: {Authorization: `Bearer ${token}`}, onopen: async () => onopen(),
            onmessage: ({data, event}) => window.heard.push([event, data]), openWhenHidden: true,
          });
        });
      }, [HUB, first(secret, all)]);
      await publish({topic: 'a', data: 'one\ntwo', type: 'kind'});
      await until(() => page.evaluate(() => window.heard.length));
      assert.deepEqual(await page.evaluate(() => window.heard), [['kind', 'one\ntwo']]);
    });

    it('EventSource hears who comes and goes, and the list has them', async () => {
      const told = await Server.start(kind, {NOVCOMET_TOKEN_KEY: `${keys}/key`, NOVCOMET_MERCURE_URL: URL_OF_HUB, NOVCOMET_MERCURE_SUBSCRIPTIONS: 'on'});
      try {
        const base = `${told.url}${HUB}`, path = `${HUB}/subscriptions`;
        const bearer = {Authorization: `Bearer ${first(secret, {...all, payload: {name: 'Ann'}})}`};
        const open = topic => new EventSource(`${base}?${new URLSearchParams({topic})}`, {
          fetch: (input, init) => fetch(input, {...init, headers: {...init.headers, ...bearer}}),
        });
        const watcher = open(`${path}/{topic}/{subscriber}`), heard = [];
        sources.push(watcher);
        watcher.onmessage = ({data}) => heard.push(JSON.parse(data));
        await until(() => watcher.readyState === 1);
        const topic = 'https://example.com/books/{id}', joined = open(topic);
        sources.push(joined);
        await until(() => heard.length);
        const {id, subscriber, active, payload} = heard[0];
        assert.equal(id, `${path}/${encodeURIComponent(topic)}/${encodeURIComponent(subscriber)}`);
        assert.deepEqual([active, payload], [true, {name: 'Ann'}]);
        const list = await fetch(`${base}/subscriptions/${encodeURIComponent(topic)}`, {headers: bearer});
        assert.equal(list.headers.get('Content-Type'), 'application/ld+json');
        assert.deepEqual((await list.json()).subscriptions.map(one => one.id), [id]);
        joined.close();
        await until(() => heard.length === 2);
        assert.deepEqual([heard[1].id, heard[1].active], [id, false]);
        const gone = await fetch(`${told.url}${id}`, {headers: bearer});
        assert.equal(gone.status, 404);
      } finally {
        for (const source of sources) source.close();
        await told.close();
      }
    });

    it('curl publishes and subscribes', async () => {
      const bearer = `Authorization: Bearer ${first(secret, all)}`;
      const url = `${server.url}${HUB}`;
      const {stdout} = await run('curl', ['-s', url, '-H', bearer, '-d', 'topic=a', '--data-urlencode', 'data=100 % & more']);
      assert.match(stdout, /^#[0-9a-z]+$/);
      const heard = await run('curl', ['-sN', '--max-time', '1', `${url}?topic=a&lastEventID=earliest`, '-H', bearer]).catch(error => error);
      assert.equal(heard.stdout, `:\nid: ${stdout}\ndata: 100 % & more\n\n`);
    });

    it('nobody subscribes or publishes without a token', async () => {
      for (const [request, status] of [
        [fetch(hub({topic: 'a'})), 401],
        [fetch(hub({topic: 'a', authorization: first(secret, all)})), 401],
        [publish({topic: 'a', data: 'x'}, 'a.b.c'), 401],
        [publish({topic: 'a', data: 'x'}, first(secret, {publish: ['b']})), 403],
        [publish({topic: 'a', data: 'x'}, first(secret, all, -1)), 401],
      ]) {
        const answer = await request;
        assert.equal(answer.status, status);
        assert.match(answer.headers.get('WWW-Authenticate'), /^Bearer/);
        assert.match((await answer.json()).detail, /./);
      }
    });
  });
}
