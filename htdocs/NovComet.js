/*!
 * NovComet: real-time notifications from the web server you already have. MIT OR Apache-2.0
 *
 *   NovComet.subscribe('news', (k, event) => show(event.id)).run();
 *   NovComet.publish('news');
 *
 * A page can subscribe to what one request carries: 64 topics, 8 KiB of query.
 */
(root => {
  'use strict';

  // Milliseconds.
  const POLL = 60e3;            // the wait we ask for; the server may answer sooner
  const GRACE = 20e3;           // so late the connection is dead,
  const TICK = 5e3;             // by the wall clock, for a laptop sleeps
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
    return Object.assign(error, {status, retry: retryAfter(response)});
  };

  /** The page's mistake: to try again soon would not help. */
  const lasting = error => /^4(?!08|25|29)/.test(error.status);

  /** What `options` lack (fetch, setTimeout, Date …) comes from globalThis. */
  function Client(url, options) {
    const {fetch, setTimeout, clearTimeout, addEventListener, removeEventListener, Date, Math} =
      Object.assign(Object.create(root), options);
    const topics = new Map();   // id → {key, callback, cursor}; no cursor until the server gave one
    const listeners = {state: new Set(), error: new Set()};
    let running = false;        // between run and stop
    let away = false;           // the page lies in the back/forward cache
    let looping = false;
    let proven = false;         // the server has answered since the last doubt
    let failures = 0;
    let paid = 0;               // how far the rate limit is used up
    let request;                // the `plan` that is under way
    let wake = () => {};        // ends the rest between two requests

    const self = Object.assign(this, {
      /** connecting, waiting, offline or stopped */
      state: 'stopped',
      /** The pause between two polls, beside JITTER. */
      sleepTime: 0,
      _baseurl: url ?? 'comet.php',
      /** More parameters for every request: 'a=b&c=d'. */
      _args: '',

      init(url) {
        self._baseurl = url ?? self._baseurl;
        return self;
      },

      /**
       * Calls `callback(k, {id, cursor, data})` at each event after `cursor`, or from now on.
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
      publish(id) {
        const body = new URLSearchParams({publish: id});
        const answer = ask('', {method: 'POST', body, keepalive: true}).then(({data}) => data);
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
      proven = false;
      failures = 0;
      if (!away) turn(active() ? 'connecting' : 'stopped');
      cut();
      wake();
      loop();
    };

    /** The poll under way asks for the wrong topics. (A look ends soon by itself.) */
    const change = () => {
      if (!request?.look) cut();
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
        const answer = await ask(mine.query, {}, mine);
        return mine === request ? accept(answer, mine) : 0;
      } catch (error) {
        return mine === request ? fail(error, mine) : 0;
      }
    };

    /** First where new topics stand, then whether the server is there, then the long poll. */
    const plan = () => {
      const all = [...topics.values()], fresh = all.filter(({cursor}) => !cursor);
      const look = !proven || fresh.length > 0, wait = look ? 0 : POLL;
      const query = (fresh.length ? fresh : all).map(({key, cursor}) =>
        `subscribed[${key}]=${encodeURIComponent(cursor || 0)}&`).join('') + `wait=${wait / 1e3}`;
      return {query, fresh, look, wait, begun: Date.now(), abort: new AbortController()};
    };

    const accept = ({data, retry}, mine) => {
      if (!data?.k) throw new Error('no answer of NovComet');
      proven = true;
      turn('waiting');
      const moved = deliver(data);
      const good = mine.look ? moved || !mine.fresh.length : data.s && moved || lasted(mine);
      if (!good && !retry) return backoff();
      if (mine.look) return retry;
      failures = 0;
      return retry + (+self.sleepTime || 0) + Math.random() * JITTER;
    };

    /** A topic moves on just before its callback: a stop in between loses nothing. */
    const deliver = ({s, k}) => {
      let moved = 0;
      for (const id of Object.keys(k)) {
        const topic = topics.get(id), cursor = k[id];
        if (!topic || !running || !(cursor > 0)) continue;
        if (cursor !== topic.cursor) moved++;
        topic.cursor = cursor;
        const error = s && call(topic.callback, k, {id, cursor, data: undefined});
        if (error) emit('error', error);
      }
      return moved;
    };

    const fail = (error, mine) => {
      proven = false;
      if (lasted(mine)) failures = 0;
      if (lasting(error)) failures = BACKOFF.length;
      turn('offline');
      emit('error', error);
      return (error.retry || 0) + backoff();
    };

    /** The server held this poll: it can bear the next. */
    const lasted = ({look, begun}) => !look && Date.now() - begun > QUICK;

    /** Full jitter, under a limit that grows. */
    const backoff = () => Math.random() * BACKOFF[Math.min(failures++, BACKOFF.length - 1)];

    /** The answer's JSON, or an Error; the server may take `wait` over it. */
    const ask = async (query, init, {wait = 0, abort = new AbortController()} = {}) => {
      const watch = guard(wait + GRACE, abort), {signal} = abort;
      const base = self._baseurl, args = [self._args, query].filter(Boolean).join('&');
      const url = args ? base + (base.includes('?') ? '&' : '?') + args : base;
      try {
        const response = await fetch(url, {...init, signal, cache: 'no-store'});
        if (!response.ok) throw await refusal(response);
        return {data: await response.json(), retry: retryAfter(response)};
      } catch (error) {
        throw watch.late ? new Error('no answer in time') : error;
      } finally {
        clearTimeout(watch.timer);
      }
    };

    const guard = (limit, abort) => {
      const begun = Date.now(), watch = {};
      const tick = () => {
        watch.late = Math.abs(Date.now() - begun) > limit;
        if (watch.late) abort.abort();
        else watch.timer = setTimeout(tick, TICK);
      };
      tick();
      return watch;
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
