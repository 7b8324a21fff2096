// Types of NovComet.js, which defines the global NovComet. NovComet.d.mts exports them for modules.

/** The position of an event in its topic. The server issues it. The client returns it unchanged. */
export type Cursor = number;

export interface Event {
  /** The topic. */
  id: string;
  cursor: Cursor;
  /** The message. An event without a message has `undefined`. */
  data: string | undefined;
  /** Events before this one may be missing, because the server no longer stores them. */
  gap: boolean;
}

/** `k` has the new cursor of each topic in the same answer, as in 2011. */
export type Callback = (k: Record<string, Cursor>, event: Event) => void;

/**
 * - `connecting`: the client has sent its first request
 * - `waiting`: the server has answered, and the client receives events
 * - `offline`: the last request failed; the client retries within 30 s, unless the server asks it
 *   to wait longer, and at once when the network returns
 * - `stopped`: `run` was not called, `stop` was called, or there are no subscriptions
 */
export type State = 'connecting' | 'waiting' | 'offline' | 'stopped';

/**
 * - `stream`: one request receives all events for about five minutes
 * - `poll`: one request waits for the next events
 * - `auto`: a stream, or polls if a proxy holds streams back; the client detects this within seconds
 *
 * Every transport delivers each event once. So does a change from one to another.
 */
export type Transport = 'auto' | 'stream' | 'poll';

/** `k` has the cursor of the published event. */
export interface Published {
  s: 1;
  k: Record<string, Cursor>;
}

/** The error of a request, or an exception from a callback. */
export interface Failure extends Error {
  /** The HTTP status, if the server has answered. */
  status?: number;
}

export interface Listeners {
  state: (state: State) => void;
  error: (error: Failure) => void;
}

/** The functions that the client uses from the browser. A test can replace them. */
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

/** All methods are bound: you can pass `client.run` as a callback. */
export class Client {
  /** `url` is the URL of comet.cgi or comet.php. The default is 'comet.php', next to the page. */
  constructor(url?: string, options?: Partial<Options>);

  /** Sets the URL. */
  init: (url?: string) => this;

  /**
   * Calls `callback` for each event of the topic `id`. A second call for the same id replaces the
   * callback. An id is any string of valid Unicode; others throw a URIError. The server accepts
   * 64 topics and 8 KiB of query.
   *
   * The client receives the events after `cursor`. Without one, it receives the events after its
   * first request for the topic. 'earliest' is before the first stored message.
   */
  subscribe: (id: string, callback: Callback, cursor?: Cursor | 'earliest') => this;

  unsubscribe: (id: string) => this;

  /** Starts to receive events. Further calls do nothing. */
  run: () => this;

  /** Stops. A later `run` continues after the last delivered event and misses none. */
  stop: () => this;

  /**
   * Publishes an event, with the message `data` if there is one. Resolves to the server's answer.
   * Rejects with a `Failure`, which the 'error' listeners receive too. You can ignore the promise.
   */
  publish: (id: string, data?: string | number | boolean) => Promise<Published>;

  /** Adds a listener. An unknown `type` throws a TypeError. */
  on: <T extends keyof Listeners>(type: T, listener: Listeners[T]) => this;
  /** Removes a listener. */
  off: <T extends keyof Listeners>(type: T, listener: Listeners[T]) => this;

  readonly state: State;

  /** You can set it at any time. It applies from the next request. The default is 'auto'. */
  transport: Transport;

  /** Milliseconds between two requests, plus a random delay of at most 100. The default is 0. */
  sleepTime: number;

  /** More parameters for every request: 'a=b&c=d'. */
  _args: string;
}

declare global {
  var NovComet: Client & {Client: typeof Client};
}
