// Types of NovComet.js: the global NovComet. Those of NovComet.mjs build on them.

/** Where a topic stands: issued by the server, and sent back to it unchanged. */
export type Cursor = number;

export interface Event {
  /** The topic. */
  id: string;
  cursor: Cursor;
  /** The message, where the event carries one. */
  data: string | undefined;
  /** Some events before this one may be missing: the server has not kept them. */
  gap: boolean;
}

/** `k` is the seed's: each topic that has an event in this answer, and its new cursor. */
export type Callback = (k: Record<string, Cursor>, event: Event) => void;

/**
 * - `connecting`: the server is being asked where the topics stand
 * - `waiting`: events arrive
 * - `offline`: the last request failed; the next one is due in 1 to 30 s, or when the network returns
 * - `stopped`: not run yet, stopped, or nothing is subscribed to
 */
export type State = 'connecting' | 'waiting' | 'offline' | 'stopped';

/**
 * - `stream`: one request brings events as they happen, for about five minutes
 * - `poll`: one request waits for the next events
 * - `auto`: a stream, or polls where a proxy holds streams back; it notices within seconds
 *
 * Whatever it is, and when it changes, nothing is lost or delivered twice.
 */
export type Transport = 'auto' | 'stream' | 'poll';

/** Where the published event stands in its topic, as its `cursor` will say. */
export interface Published {
  s: 1;
  k: Record<string, Cursor>;
}

/** What failed: a request (with the HTTP `status`, if it came so far), or a callback of yours. */
export interface Failure extends Error {
  status?: number;
}

export interface Listeners {
  state: (state: State) => void;
  error: (error: Failure) => void;
}

/** What the client takes from its surroundings; a test may hand in its own. */
export interface World {
  fetch: typeof fetch;
  setTimeout: (f: () => void, ms?: number) => unknown;
  clearTimeout: (timer: any) => void;
  addEventListener: (type: string, listener: (event: any) => void) => void;
  removeEventListener: (type: string, listener: (event: any) => void) => void;
  TextDecoder: typeof TextDecoder;
  Date: {now(): number};
  Math: {random(): number; min(...n: number[]): number; max(...n: number[]): number; abs(n: number): number};
}

export interface Options extends World {
  transport: Transport;
}

/** All methods are bound: they may be passed on without their object. */
export class Client {
  /** `url` is where comet.php (or comet.cgi) is; default 'comet.php', beside the page. */
  constructor(url?: string, options?: Partial<Options>);

  /** Sets the URL. */
  init: (url?: string) => this;

  /**
   * Calls back at each event of the topic `id`, which may be any string that is valid Unicode.
   * Again for the same id it replaces the callback. At most 64 topics and 8 KiB of query.
   *
   * Events count from the moment the server first hears of the topic, or from `cursor`;
   * `earliest` is before the first message that is kept.
   */
  subscribe: (id: string, callback: Callback, cursor?: Cursor | 'earliest') => this;

  unsubscribe: (id: string) => this;

  /** Begins to listen; once is enough. */
  run: () => this;

  /** Ends it; `run` then goes on where it was, and what was published in between is delivered. */
  stop: () => this;

  /**
   * Makes an event happen, with a message if there is `data`. Resolves to the server's answer;
   * rejects with a `Failure`. The promise may be ignored.
   */
  publish: (id: string, data?: string | number | boolean) => Promise<Published>;

  on: <T extends keyof Listeners>(type: T, listener: Listeners[T]) => this;
  off: <T extends keyof Listeners>(type: T, listener: Listeners[T]) => this;

  readonly state: State;

  /** May be set at any time, and counts from the next request. Default 'auto'. */
  transport: Transport;

  /** Milliseconds between two requests, beside a random delay of at most 100. Default 0. */
  sleepTime: number;

  /** More parameters for every request, 'a=b&c=d'. */
  _args: string;
}

declare global {
  var NovComet: Client & {Client: typeof Client};
}
