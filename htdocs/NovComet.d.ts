// Types of NovComet.js, which defines the global NovComet. NovComet.d.mts exports them for modules.

/** The position of an event in its topic. The server issues it. The client returns it unchanged. */
export type Cursor = number;

/** Where a subscription begins. */
export type Start = Cursor | 'earliest' | 'latest';

export interface Event {
  /** The topic. */
  id: string;
  cursor: Cursor;
  /** The message. An event without a message has `undefined`. */
  data: string | undefined;
  /** Events before this one may be missing, because the server no longer stores them. */
  gap: boolean;
  /** The message, read as JSON. Throws a SyntaxError if it is none. */
  json(): any;
}

/** `k` has the new cursor of each topic in the same answer, as in 2011. */
export type Callback = (k: Record<string, Cursor>, event: Event) => void;

/**
 * - `connecting`: the client has sent its first request
 * - `waiting`: the server has answered, and the client receives events
 * - `queued`: the server has no free slot; it has told the client to ask again in 5 to 15 s
 * - `offline`: requests fail; the client retries within 30 s, unless the server asks it to wait
 *   longer, and at once when the network returns. A failure that is over after a second is not told.
 * - `stopped`: `run` was not called, `stop` was called, or there are no subscriptions
 */
export type State = 'connecting' | 'waiting' | 'queued' | 'offline' | 'stopped';

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

/** Those who wait for a topic at the server that answers. */
export interface Subscribers {
  /** How many connections wait. All tabs of a browser are one. */
  number: number;
  /** The `sub` of their tokens, each once. Without a token that grants the topic, it is not told. */
  names?: string[];
}

/**
 * - `network`: no answer; a page cannot know whether there is no network, no server, or no CORS
 * - `timeout`: no answer in time
 * - `html`: the answer is a page: a wrong URL, a login page or a fallback
 * - `binary`: the answer is the program itself; the server does not run it as CGI
 * - `not-novcomet`: the answer is something else
 * - the others: an HTTP status. `unavailable` is 429 or 503, `bad-request` any other 4xx,
 *   `server` any other 5xx.
 */
export type Code = 'network' | 'timeout' | 'html' | 'binary' | 'not-novcomet' | 'bad-request' | 'unauthorized'
  | 'forbidden' | 'not-found' | 'too-large' | 'unavailable' | 'server';

/** The error of a request, or an exception from a callback. The message says the likely cause. */
export interface Failure extends Error {
  code?: Code;
  /** The HTTP status, if the server has answered. */
  status?: number;
  /** The URL of the request, without its query. */
  url?: string;
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
  addEventListener: (type: string, listener: (event: any) => void, capture?: boolean) => void;
  removeEventListener: (type: string, listener: (event: any) => void, capture?: boolean) => void;
  TextDecoder: typeof TextDecoder;
  Date: {now(): number};
  Math: {random(): number; min(...n: number[]): number; max(...n: number[]): number; abs(n: number): number};
  console: {warn(text: string): void};
  document: {baseURI: string};
  navigator: {locks?: any};
  BroadcastChannel: any;
  SharedWorker: any;
  sessionStorage: {getItem(key: string): string | null; setItem(key: string, value: string): void};
}

export type Token = string | ((refused?: boolean) => string | Promise<string>);

/** What a message can be. Objects, arrays and null become JSON. A Promise, a Map or a Blob throws a TypeError. */
export type Data = string | number | boolean | null | object;

export interface Settings {
  /** You can set it at any time. It applies from the next request. The default is 'auto'. */
  transport: Transport;
  /** Whether the tabs of a browser share one connection, if their settings are equal. The default is true. */
  shared: boolean;
  /** With 'session', the next page of the same tab goes on where this page ends. Set it before `subscribe`. */
  resume: 'session' | undefined;
  /**
   * A token, or a function that gets one. It is sent as a Bearer header. The function is called again
   * before the token expires, and when the server refuses it.
   */
  token: Token | undefined;
  /** As of `fetch`. 'include' sends cookies to another origin. */
  credentials: RequestCredentials | undefined;
}

export interface Options extends World, Settings {}

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
   * first request for the topic. 'earliest' is before the first stored message, 'latest' before the
   * last one.
   */
  subscribe: (id: string, callback: Callback, cursor?: Start) => this;

  /** The same for any number of callbacks of a topic. Returns a function that takes this one away. */
  listen: (id: string, callback: Callback, cursor?: Start) => () => void;

  /** Takes all callbacks of the topic away. */
  unsubscribe: (id: string) => this;

  /** Starts to receive events. Further calls do nothing. */
  run: () => this;

  /** Stops. A later `run` continues after the last delivered event and misses none. */
  stop: () => this;

  /**
   * Publishes an event, with the message `data` if there is one. Resolves to the server's answer.
   * Rejects with a `Failure`, which the 'error' listeners receive too. You can ignore the promise.
   * The events of a client arrive in the order of the calls.
   */
  publish: (id: string, data?: Data) => Promise<Published>;

  /** Resolves to those who wait for the topic now. Rejects with a `Failure`. */
  who: (id: string) => Promise<Subscribers>;

  /** Adds a listener. An unknown `type` throws a TypeError. */
  on: <T extends keyof Listeners>(type: T, listener: Listeners[T]) => this;
  /** Removes a listener. */
  off: <T extends keyof Listeners>(type: T, listener: Listeners[T]) => this;

  readonly state: State;

  transport: Transport;
  shared: boolean;
  resume: 'session' | undefined;
  token: Token | undefined;
  credentials: RequestCredentials | undefined;

  /** The URL of NovComet.js for the shared worker. A classic script and the module know it. */
  static script?: string;

  /** Milliseconds between two requests, plus a random delay of at most 100. The default is 0. */
  sleepTime: number;

  /** More parameters for every request: 'a=b&c=d'. */
  _args: string;
}

declare global {
  var NovComet: Client & {Client: typeof Client};
}
