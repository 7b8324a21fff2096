/*!
 * NovComet: real-time notifications from the web server you already have. MIT OR Apache-2.0
 *
 *   NovComet.subscribe('news', (k, event) => show(event.data)).run();
 *   NovComet.publish('news', 'It works.');
 */
(root => {
  'use strict';

  // Milliseconds.
  const POLL = 60e3;            // the wait we ask for; the server may answer sooner
  const GRACE = 20e3;           // so late the connection is dead,
  const MUTE = 4e3;             // or a stream that did not begin,
  const SILENCE = 25e3;         // or has no heartbeat, due each 15 s,
  const TICK = 5e3;             // by the wall clock, for a laptop sleeps
  const SHUN = 600e3;           // until a stream is tried again where none came through
  const JITTER = 100;           // clients woken by one event come back spread over this
  const QUICK = 1e3;            // nothing new so soon is no long poll
  const BACKOFF = [1e3, 2e3, 4e3, 8e3, 16e3, 30e3];
  const RATE = 250, BURST = 10 * RATE;  // ten requests at once, for long one each RATE

  const retryAfter = ({headers}) =>
    Math.min(Math.max(headers.get('Retry-After') * 1e3, 0) || 0, 3600e3);

  /** What is not 2xx, as an Error: our server says why (RFC 9457), a proxy may not. */
  const refusal = async response => {
    const {status} = response, problem = await response.json().catch(() => null);
    const error = new Error(problem?.detail || problem?.title || `HTTP ${status}`);
    return Object.assign(error, {status, retry: retryAfter(response), ours: !!problem});
  };

  /** The page's mistake: to try again soon would not help. */
  const lasting = error => /^4(?!08|25|29)/.test(error.status);

  /** The events of a topic that stood at `since`. */
  const news = ({s, k, m, gap}, id, since) => {
    const messages = new Map(Object.entries(m ?? {})).get(id) ?? [], lost = !!gap?.includes(id);
    const events = messages.filter(message => lost || !(message.id <= since));
    if (s && !(k[id] <= messages[messages.length - 1]?.id)) events.push({id: k[id]});
    return events.map(({id: cursor, data}, i) => ({id, cursor, data, gap: lost && !i}));
  };

  /** What `options` lack (fetch, setTimeout, Date …) comes from globalThis. */
  function Client(url, options) {
    const {fetch, setTimeout, clearTimeout, addEventListener, removeEventListener, TextDecoder, Date, Math} =
      Object.assign(Object.create(root), options);
    const topics = new Map();   // id → {key, callback, cursor}; no cursor until the server gave one
    const listeners = {state: new Set(), error: new Set()};
    let running = false;        // between run and stop
    let away = false;           // the page lies in the back/forward cache
    let looping = false;
    let proven = false;         // the server has answered since the last doubt
    let flowing = false;        // a stream has begun, and nothing failed since
    let mutes = 0;              // streams in a row that were mute or short
    let shunned = 0;            // until when 'auto' polls
    let failures = 0;
    let paid = 0;               // how far the rate limit is used up
    let posting = 0;            // bytes
    let request;                // the `plan` that is under way
    let wake = () => {};        // ends the rest between two requests

    const self = Object.assign(this, {
      /** connecting, waiting, offline or stopped */
      state: 'stopped',
      /** stream, poll, or auto: a stream where one comes through. */
      transport: options?.transport ?? 'auto',
      /** The pause between two requests, beside JITTER. */
      sleepTime: 0,
      _baseurl: url ?? 'comet.php',
      /** More parameters for every request: 'a=b&c=d'. */
      _args: '',

      init(url) {
        self._baseurl = url ?? self._baseurl;
        return self;
      },

      /**
       * Calls `callback(k, {id, cursor, data, gap})` at each event after `cursor`, or from now on.
       * Once more for the same id replaces the callback.
       */
      subscribe(id, callback, cursor) {
        const key = encodeURIComponent(id), topic = topics.get(`${id}`);
        if (topic) topic.callback = callback;
        else change(topics.set(`${id}`, {key, callback, cursor}));
        return self;
      },

      unsubscribe(id) {
        if (topics.delete(`${id}`)) change();
        return self;
      },

      run: () => toggle(true),

      /** After it, `run` goes on where we were. */
      stop: () => toggle(false),

      /** Resolves to the server's answer; the promise may be ignored. */
      publish(id, data) {
        const answer = post(new URLSearchParams(data === undefined ? {publish: id} : {publish: id, data}));
        answer.catch(error => emit('error', error));
        return answer;
      },

      /** 'state', or 'error': an Error, with the `status` of HTTP if there was one. */
      on(type, listener) {
        listeners[type].add(listener);
        return self;
      },

      off(type, listener) {
        listeners[type].delete(listener);
        return self;
      },
    });

    const emit = (type, value) => listeners[type].forEach(listener => call(listener, value));

    /** Runs the page's code: what it throws goes to window.onerror, not up our loop. */
    const call = (f, ...args) => {
      try {
        f(...args);
      } catch (error) {
        setTimeout(() => { throw error; });
        return error;
      }
    };

    const turn = state => {
      if (state === self.state) return;
      self.state = state;
      emit('state', state);
    };

    const active = () => running && !away && topics.size > 0;

    const toggle = on => {
      if (on === running) return self;
      const set = on ? addEventListener : removeEventListener;
      for (const type of ['online', 'offline', 'pagehide', 'pageshow']) set?.(type, shift);
      running = on;
      doubt();
      return self;
    };

    /** The network came or went, or the page did. */
    const shift = ({type, persisted}) => {
      if (type === 'pageshow' && !persisted) return;
      away = type === 'pagehide';
      doubt();
    };

    /** Whether the server is there must be asked anew, at once. */
    const doubt = () => {
      proven = flowing = false;
      failures = mutes = shunned = 0;
      if (!away) turn(active() ? 'connecting' : 'stopped');
      cut();
      wake();
      loop();
    };

    /** The request under way asks for the wrong topics. (A look ends soon by itself.) */
    const change = () => {
      if (request?.look) request.stale = true;
      else cut();
      loop();
    };

    /** Ends the request under way; `round` sees that it was us. */
    const cut = () => {
      const abort = request?.abort;
      request = null;
      abort?.abort();
    };

    const loop = async () => {
      if (looping || !active()) return;
      looping = true;
      proven = false;
      turn('connecting');
      await null;               // the script may subscribe to more
      while (active()) {
        await rest(await round());
        await pay();
      }
      looping = false;
      if (!away) turn('stopped');
    };

    /** One request and its effects. Resolves to how long to rest, never rejects. */
    const round = async () => {
      const mine = request = plan();
      try {
        for await (const answer of ask(mine.query, {}, mine)) {
          if (mine !== request) return 0;
          accept(answer, mine);
        }
        return mine === request ? end(mine) : 0;
      } catch (error) {
        return mine === request ? fail(error, mine) : 0;
      }
    };

    /**
     * First where new topics stand, then whether the server is there, then the long poll. A stream
     * begins with such a look itself; 'auto' does not rely on that before one came through.
     */
    const plan = () => {
      const all = [...topics.values()], fresh = all.filter(({cursor}) => !cursor), {transport} = self;
      const stream = transport === 'stream' || transport !== 'poll' &&
        Date.now() >= shunned && (flowing || proven && !fresh.length);
      const look = stream || !proven || fresh.length > 0, wait = look ? 0 : POLL;
      const query = (stream || !fresh.length ? all : fresh).map(({key, cursor}) =>
        `subscribed[${key}]=${encodeURIComponent(cursor || 0)}&`).join('') +
        (stream ? 'stream=json' : `wait=${wait / 1e3}`);
      return {query, fresh, look, stream, limit: stream ? MUTE : wait + GRACE};
    };

    const accept = (answer, mine) => {
      if (!answer?.k) throw new Error('no answer of NovComet');
      proven = true;
      turn('waiting');
      if (mine.stream) begin(mine);
      const moved = deliver(answer);
      if (mine.look ? moved || !mine.fresh.length : answer.s && moved) mine.good = true;
    };

    /** The look that a stream begins with is over; who answers otherwise has none. */
    const begin = mine => {
      mine.look = false;
      mine.limit = SILENCE;
      flowing = mine.stream = mine.flows;
      if (!flowing) shun();
      if (mine.stale) cut();
    };

    /** A topic moves on just before each callback: a stop in it loses and doubles nothing. */
    const deliver = answer => {
      let moved = 0;
      for (const [id, cursor] of Object.entries(answer.k)) {
        const topic = topics.get(id), here = () => running && topics.get(id) === topic;
        if (!topic || !(cursor > 0)) continue;
        if (cursor !== topic.cursor) moved++;
        for (const event of news(answer, id, topic.cursor)) {
          if (!here()) break;
          topic.cursor = event.cursor;
          const error = call(topic.callback, answer.k, event);
          if (error) emit('error', error);
        }
        if (here()) topic.cursor = cursor;
      }
      return moved;
    };

    const end = mine => {
      if (mine.stream && mine.look) throw new Error('no answer of NovComet');
      const {retry} = mine, good = mine.good || lasted(mine);
      if (!good && !retry) return distrust(mine) ? 0 : backoff();
      if (mine.look) return retry;
      failures = 0;
      return retry + (+self.sleepTime || 0) + Math.random() * JITTER;
    };

    const fail = (error, mine) => {
      const blocked = !error.ours && distrust(mine);
      proven = flowing = false;
      if (blocked) return 0;
      if (lasted(mine)) failures = 0;
      if (lasting(error)) failures = BACKOFF.length;
      turn('offline');
      emit('error', error);
      return (error.retry || 0) + backoff();
    };

    /** Whether to poll because this stream came to nothing: the first of all, or two in a row. */
    const distrust = ({stream}) => stream && (!flowing || ++mutes > 1) && shun();

    const shun = () => self.transport !== 'stream' && (shunned = Date.now() + SHUN);

    /** The server held this request: it can bear the next. */
    const lasted = ({look, begun}) => !look && Date.now() - begun > QUICK;

    /** Full jitter, under a limit that grows. */
    const backoff = () => Math.random() * BACKOFF[Math.min(failures++, BACKOFF.length - 1)];

    /** The JSON of an answer, or of each in a stream; or an Error. */
    const ask = async function* (query, init, mine) {
      const {signal} = mine.abort = new AbortController();
      mine.begun = mine.seen = Date.now();
      guard(mine);
      try {
        const response = await fetch(address(query), {...init, signal, cache: 'no-store'});
        if (!response.ok) throw await refusal(response);
        mine.retry = retryAfter(response);
        mine.flows = /event-stream/.test(response.headers.get('Content-Type'));
        if (mine.flows) yield* read(response.body.getReader(), mine);
        else yield await response.json();
      } catch (error) {
        throw mine.late ? new Error('no answer in time') : error;
      } finally {
        clearTimeout(mine.timer);
        mine.abort.abort();
      }
    };

    const address = query => {
      const base = self._baseurl, args = [self._args, query].filter(Boolean).join('&');
      return args ? base + (base.includes('?') ? '&' : '?') + args : base;
    };

    const read = async function* (reader, mine) {
      const decoder = new TextDecoder();
      for (let rest = '', chunk; !(chunk = await reader.read()).done;) {
        const lines = (rest + decoder.decode(chunk.value, {stream: true})).split('\n');
        rest = lines.pop();
        mine.seen = Date.now();
        if (mine.seen - mine.begun > MUTE) mutes = 0;
        for (const line of lines) if (line.startsWith('data:')) yield JSON.parse(line.slice(5));
      }
    };

    /** Browsers let 64 KiB at a time outlive the page, and refuse more. */
    const post = async body => {
      const {length} = `${body}`, keepalive = (posting += length) < 6e4;
      try {
        for await (const answer of ask('', {method: 'POST', body, keepalive}, {limit: GRACE})) return answer;
      } finally {
        posting -= length;
      }
    };

    const guard = mine => {
      mine.late = Math.abs(Date.now() - mine.seen) > mine.limit;
      if (mine.late) mine.abort.abort();
      else mine.timer = setTimeout(() => guard(mine), TICK);
    };

    /** Until `ms` have passed or somebody calls `wake`. */
    const rest = ms => ms > 0 && new Promise(done => setTimeout(wake = done, ms));

    /** The rate limit, that nothing wakes and no clock set back makes long. */
    const pay = () => {
      const now = Date.now();
      paid = Math.min(Math.max(now, paid), now + BURST) + RATE;
      const debt = paid - now - BURST;
      return debt > 0 && new Promise(done => setTimeout(done, debt));
    };
  }

  root.NovComet ??= Object.assign(new Client(), {Client});
})(globalThis);
