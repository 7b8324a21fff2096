// Messages through both servers, by our own client and by EventSource: Chromium's, and one for Node.
import assert from 'node:assert/strict';
import {after, afterEach, before, beforeEach, describe, it} from 'node:test';
import {EventSource} from 'eventsource';
import {Server, gets, launch, listen, messages, open, until} from './support.mjs';

const texts = ['one', '', 'zwei\n€ 😀', '\r\n\r', '{"json":[1,2]}', 'data: 3\n\nid: 4', ' ', 'x'.repeat(60e3)];
/** The text as Server-Sent Events deliver it: with lines, but without the kind of their ends. */
const lined = text => text.replaceAll(/\r\n|\r/g, '\n');

let browser;
before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });

/** Each opens a source, and shows its events as [type, data] and the number of its connections. */
const sources = {
  async chromium(context, server, url) {
    await server.serve('empty.html', '<!doctype html><title>empty</title>');
    const page = await open(context, `${server.url}/empty.html`);
    await page.evaluate(url => {
      Object.assign(window, {got: [], opens: 0, source: new EventSource(url)});
      source.onopen = () => { opens++; };
      for (const type of ['message', 'a', 'b', 'gap']) {
        source.addEventListener(type, ({type, data}) => { got.push([type, data]); });
      }
    }, url);
    return {
      got: () => page.evaluate(() => got),
      opens: () => page.evaluate(() => opens),
      close: () => page.close(),
    };
  },

  async node(context, server, url) {
    const source = new EventSource(server.url + url), got = [];
    let opens = 0;
    source.onopen = () => { opens++; };
    for (const type of ['message', 'a', 'b', 'gap']) {
      source.addEventListener(type, ({type, data}) => { got.push([type, data]); });
    }
    return {got: () => got, opens: () => opens, close: () => source.close()};
  },
};

for (const kind of ['apache', 'lighttpd']) {
  describe(`through ${kind}`, () => {
    let server, context;

    before(async () => { server = await Server.start(kind); });
    beforeEach(async () => { context = await browser.newContext(); });

    afterEach(async () => {
      const mistakes = context.pages().flatMap(page => page.mistakes ?? []);
      await context.close();
      await server.empty();
      assert.deepEqual(mistakes, []);
    });

    after(() => server?.close());

    for (const transport of ['stream', 'poll']) {
      it(`messages arrive unchanged, by ${transport}`, async () => {
        const page = await listen(context, server, transport);
        for (const text of texts) await server.publish('a', text);
        await gets(page, ...texts);
      });

      it(`event without message arrives, by ${transport}`, async () => {
        const page = await listen(context, server, transport);
        await server.publish('a');
        await gets(page, null);
        await server.publish('a', '');
        await gets(page, null, '');
      });

      it(`concurrent messages arrive in cursor order, by ${transport}`, async () => {
        const page = await listen(context, server, transport);
        const publish = async name => {
          for (let i = 0; i < 25; i++) await server.publish('a', `${name}${i}`);
        };
        await Promise.all(['p', 'q', 'r', 's'].map(publish));
        await until(async () => (await messages(page)).length >= 100);
        const got = await page.evaluate(() => heard.map(({cursor, data}) => [cursor, data]));
        assert.equal(new Set(got.map(([, data]) => data)).size, 100);
        assert.equal(got.length, 100);
        assert.deepEqual(got, [...got].sort(([a], [b]) => a - b));
      });

      it(`gap is reported, by ${transport}`, async () => {
        const page = await listen(context, server, transport);
        await server.publish('a', 'old');
        await gets(page, 'old');
        await page.evaluate(() => { client.stop(); });
        await server.empty();
        await server.publish('a', 'new');
        await server.publish('a', 'newer');
        await page.evaluate(() => { client.run(); });
        await gets(page, 'old', 'new', 'newer');
        assert.deepEqual(await page.evaluate(() => heard.map(({gap}) => gap)), [false, true, false]);
      });
    }

    it('one stream brings many messages', async () => {
      const page = await listen(context, server, 'stream');
      for (let i = 0; i < 20; i++) {
        await server.publish(i % 2 ? 'a' : 'b', `${i}`);
        await gets(page, ...Array.from({length: i + 1}, (_, i) => `${i}`));
      }
      assert.deepEqual(page.asked, ['stream=json']);
    });

    for (const [name, start] of Object.entries(sources)) {
      describe(`the EventSource of ${name}`, () => {
        let source;
        const connect = async url => {
          source = await start(context, server, url);
          await until(async () => await source.opens() > 0, 'it is open');
        };
        const receives = async (...expected) => {
          await until(async () => (await source.got()).length >= expected.length, `all of ${expected.length}`);
          assert.deepEqual(await source.got(), expected);
        };
        afterEach(() => source.close());

        it('events are named by their topics', async () => {
          await connect('/comet.cgi?subscribed[a]=0&subscribed[b]=0');
          const expected = [];
          for (const [i, text] of texts.entries()) {
            const topic = 'ab'[i % 2];
            await server.publish(topic, text);
            await receives(...expected, [topic, lined(text)]);
            expected.push([topic, lined(text)]);
          }
          await server.publish('a');
          await receives(...expected, ['a', '']);
        });

        it('named=0 makes all events messages', async () => {
          await connect('/comet.cgi?subscribed[a]=0&subscribed[b]=0&named=0');
          await server.publish('a', 'one');
          await receives(['message', 'one']);
          await server.publish('b', 'two');
          await receives(['message', 'one'], ['message', 'two']);
        });

        it('gap is reported', async () => {
          const {k: {a}} = await server.publish('a', 'old');
          await server.empty();
          await server.publish('a', 'new');
          await connect(`/comet.cgi?subscribed[a]=${a}`);
          await receives(['gap', 'a'], ['a', 'new']);
        });

        it('reconnects continue without loss', async () => {
          await connect('/comet.cgi?subscribed[a]=0&subscribed[b]=0&wait=1');
          const sent = [];
          while (await source.opens() < 3) {
            const topic = 'ab'[sent.length % 2];
            sent.push([topic, `${sent.length}`]);
            await server.publish(...sent.at(-1));
          }
          await until(async () => (await source.got()).length >= sent.length, `all of ${sent.length}`);
          const of = (all, name) => all.filter(([topic]) => topic === name);
          for (const topic of ['a', 'b', 'gap']) assert.deepEqual(of(await source.got(), topic), of(sent, topic));
        });
      });
    }

    if (kind === 'apache') it('heartbeat keeps a stream open', async () => {
      const page = await listen(context, server, 'stream');
      const {body} = await fetch(`${server.url}/comet.cgi?subscribed[a]=0&stream=1`);
      let text = '';
      for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
        text += chunk;
        if (text.split('\n').filter(line => line === ':').length === 2) break;
      }
      await server.publish('a', 'one');
      await gets(page, 'one');
      assert.deepEqual(page.asked, ['stream=json']);
      assert.deepEqual(await page.evaluate(() => errors), []);
    });
  });
}
