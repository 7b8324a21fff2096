// A simulated server, which numbers its messages.
import {event} from './world.mjs';

const HEARTBEAT = 15e3, STREAM = 300e3, WAIT = 40e3, MOST = 4;

/** Always the same numbers from the same seed (mulberry32). */
export const dice = seed => () => {
  seed = seed + 0x6d2b79f5 | 0;
  let t = Math.imul(seed ^ seed >>> 15, 1 | seed);
  t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
  return ((t ^ t >>> 14) >>> 0) / 2 ** 32;
};

/** Answers as docs/protocol.md says, at most MOST messages at a time. */
export class Hub {
  topics = new Map();       // id → its messages
  waiting = new Set();

  constructor(world) { this.world = world; }

  publish(id) {
    const messages = this.topics.get(id) ?? [];
    this.topics.set(id, [...messages, {id: messages.length + 1.5, data: `${messages.length}`}]);
    for (const wake of [...this.waiting]) wake();
  }

  stand(id) { return this.topics.get(id)?.at(-1).id ?? 0.1; }

  /** The cursors of a query; the server replaces those that are not yet numbers. */
  cursors(query) {
    return Object.fromEntries([...query.matchAll(/subscribed\[(\w+)\]=([\d.]+)/g)]
      .map(([, id, cursor]) => [id, Number(cursor) || this.stand(id)]));
  }

  /** The messages after the cursors. Advances the cursors. */
  news(cursors) {
    const m = Object.fromEntries(Object.keys(cursors)
      .map(id => [id, (this.topics.get(id) ?? []).filter(message => message.id > cursors[id]).slice(0, MOST)])
      .filter(([, messages]) => messages.length));
    const k = Object.fromEntries(Object.entries(m).map(([id, messages]) => [id, messages.at(-1).id]));
    Object.assign(cursors, k);
    return Object.keys(k).length && {s: 1, k, m};
  }

  poll(query, answer) {
    const cursors = this.cursors(query);
    const look = () => {
      const news = this.news(cursors);
      if (news) finish(news);
      return news;
    };
    const finish = news => {
      this.waiting.delete(look);
      this.world.clear(timer);
      answer(news);
    };
    const wait = query.endsWith('wait=0') ? 0 : WAIT;
    const timer = this.world.after(wait, () => finish({s: 0, k: cursors}));
    if (!look()) this.waiting.add(look);
  }

  stream(query, send, end) {
    const cursors = this.cursors(query), begun = this.world.now;
    const look = () => {
      for (let news; (news = this.news(cursors));) send(event(news));
    };
    const beat = () => {
      if (this.world.now - begun >= STREAM) {
        this.waiting.delete(look);
        return end();
      }
      send(':\n');
      this.world.after(HEARTBEAT, beat);
    };
    send(': novcomet\nretry: 1000\n' + event({s: 0, k: cursors}));
    look();
    this.waiting.add(look);
    this.world.after(HEARTBEAT, beat);
  }
}
