// The clients of Bayeux in the stories, with one interface: cometd and faye of npm, and aiocometd of PyPI.
// Only what a page would configure is configured.
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import net from 'node:net';
import {createInterface} from 'node:readline';
import {setTimeout as sleep} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import {AckExtension, CometD, LongPollingTransport} from 'cometd';
import {adapt} from 'cometd-nodejs-client';
import faye from 'faye';
import {SOURCE, until} from './support.mjs';

const RETRY = 50;       // ms until the first reconnect after a failure
const PATIENCE = 5e3;   // ms until the end of a session is not waited for any more

/** The requests of one browser: all tabs send the same cookies. */
export function browser() {
  adapt();
  delete window.console;    // cometd logs all that its listeners are told anyway
  return window.XMLHttpRequest;
}

/** cometd reads the global XMLHttpRequest at each request. So each client has the one of its own browser. */
class Transport extends LongPollingTransport {
  #requests;

  constructor(requests) {
    super();
    this.#requests = requests;
  }

  xhrSend(packet) {
    window.XMLHttpRequest = this.#requests;
    return super.xhrSend(packet);
  }
}

/** The received messages and the ids of the sessions, which every client has. */
class Client {
  heard = [];       // the messages, as {channel, data}
  sessions = [];    // the session of each handshake; more than one if the client had to shake hands again

  data = channel => this.heard.filter(one => !channel || one.channel === channel).map(one => one.data);

  failed = false;   // whether the server could not do what a connect asks for

  get session() { return this.sessions.at(-1); }

  /** Waits for a message with this data, which may be the last of many. */
  hears = data => until(() => this.heard.some(one => one.data === data), `${this.constructor.name} hears ${data}`);
}

export class Cometd extends Client {
  #subscriptions = new Map();

  /**
   * The session is established when this returns.
   * `ack` is the extension, `websocket` the first transport of the package as it is shipped, `handshake` are
   * fields of the handshake, `headers` those of all requests.
   */
  static async start(url, {ack = true, requests = browser(), websocket = false, handshake = {}, headers = {}} = {}) {
    const client = new Cometd();
    const cometd = client.cometd = new CometD();
    if (!websocket) cometd.unregisterTransport('websocket');
    cometd.unregisterTransport('long-polling');
    cometd.registerTransport('long-polling', new Transport(requests), websocket ? 1 : 0);
    if (ack) cometd.registerExtension('ack', new AckExtension());
    cometd.addListener('/meta/handshake', reply => reply.successful && client.#begin(reply));
    cometd.addListener('/meta/connect', reply => { client.failed ||= /^503:/.test(reply.error); });
    cometd.configure({url, requestHeaders: headers, backoffIncrement: RETRY, logLevel: 'warn'});
    // A WebSocket that fails is answered, too, before the next transport is tried.
    await client.#asked(answer => cometd.handshake(handshake, reply => {
      if (reply.failure?.connectionType !== 'websocket') answer(reply);
    }));
    return client;
  }

  /** A new session has no subscriptions, so a page subscribes in this listener. */
  #begin({clientId}) {
    this.sessions.push(clientId);
    const channels = [...this.#subscriptions.keys()];
    this.cometd.batch(() => channels.forEach(channel => this.#subscribe(channel)));
  }

  #subscribe(channel, answer) {
    const heard = ({channel, data}) => this.heard.push({channel, data});
    this.#subscriptions.set(channel, this.cometd.subscribe(channel, heard, {}, answer));
  }

  #asked = async ask => {
    const reply = await new Promise(ask);
    if (!reply.successful) throw new Error(reply.error ?? reply.failure?.reason);
    return reply;
  };

  subscribe(channel) { return this.#asked(answer => this.#subscribe(channel, answer)); }

  async unsubscribe(channel) {
    await this.#asked(answer => this.cometd.unsubscribe(this.#subscriptions.get(channel), {}, answer));
    this.#subscriptions.delete(channel);
  }

  publish(channel, data) { return this.#asked(answer => this.cometd.publish(channel, data, {}, answer)); }

  /** What `operations` does goes in one request. */
  batch(operations) {
    let all;
    this.cometd.batch(() => { all = operations(); });
    return Promise.all(all);
  }

  /** The end of the session, as the answer to the next connect, may come before the answer to this, and aborts it. */
  async close() {
    if (!this.cometd.isDisconnected()) await new Promise(done => this.cometd.disconnect(done));
  }
}

export class Faye extends Client {
  #subscriptions = new Map();
  #ended = [];

  static async start(url, {handshake = {}, headers = {}} = {}) {
    const client = new Faye();
    client.faye = new faye.Client(url, {retry: RETRY / 1e3});
    for (const [name, value] of Object.entries(headers)) client.faye.setHeader(name, value);
    client.faye.addExtension({
      outgoing: (message, send) => send(message.channel === '/meta/handshake' ? {...message, ...handshake} : message),
      incoming: (message, take) => take(client.#incoming(message)),
    });
    await client.#connected();
    return client;
  }

  /** Its promises have no answer to an unsubscription, and none to a handshake that is refused. */
  #incoming(message) {
    if (message.channel === '/meta/handshake') {
      if (message.successful) this.sessions.push(message.clientId);
      else this.refused = new Error(message.error);
    }
    if (message.channel === '/meta/unsubscribe') this.#ended.push(message);
    if (message.channel === '/meta/connect') this.failed ||= /^503:/.test(message.error);
    return message;
  }

  async #connected() {
    let connected = false;
    this.faye.connect(() => { connected = true; });
    await until(() => connected || this.refused, 'faye connects');
    if (this.refused) throw this.refused;
  }

  async subscribe(channel) {
    const subscription = this.faye.subscribe(channel).withChannel((channel, data) => this.heard.push({channel, data}));
    this.#subscriptions.set(channel, subscription);
    await subscription;
  }

  async unsubscribe(channel) {
    this.#subscriptions.get(channel).cancel();
    const reply = await until(() => this.#ended.find(reply => reply.subscription === channel), 'faye unsubscribes');
    if (!reply.successful) throw new Error(reply.error);
  }

  async publish(channel, data) { await this.faye.publish(channel, data); }

  /** Faye itself sends in one request what is published at once. */
  batch(operations) { return Promise.all(operations()); }

  async close() {
    await Promise.race([this.faye.disconnect(), sleep(PATIENCE, null, {ref: false})]);
    this.faye._dispatcher.close();    // it would ask a server that is gone for ever
  }
}

/** A process of Python. Each line is a command, and each line of its output a message. */
export class Aiocometd extends Client {
  static async start(url) {
    const client = new Aiocometd();
    const script = fileURLToPath(new URL('bayeux.py', import.meta.url));
    const python = client.python = spawn('setpriv', ['--pdeathsig', 'KILL', `${SOURCE}/target/python/bin/python`, script, url],
      {stdio: ['pipe', 'pipe', 'inherit']});
    client.ended = once(python, 'exit');
    createInterface({input: python.stdout}).on('line', line => client.#incoming(JSON.parse(line)));
    await until(() => client.sessions.length || python.exitCode !== null, 'aiocometd connects');
    return client;
  }

  replies = 0;

  #incoming(message) {
    if (message.session) this.sessions.push(message.session);
    else if (message.channel) this.heard.push(message);
    else this.replies++;
  }

  async #ask(...command) {
    const {replies} = this;
    this.python.stdin.write(`${JSON.stringify(command)}\n`);
    await until(() => this.replies > replies || this.python.exitCode !== null, command[0]);
  }

  subscribe(channel) { return this.#ask('subscribe', channel); }

  unsubscribe(channel) { return this.#ask('unsubscribe', channel); }

  publish(channel, data) { return this.#ask('publish', channel, data); }

  async close() {
    this.python.stdin.end();
    await this.ended;
  }
}

/** A proxy of TCP that can end a connection amid an answer. */
export class Cutter {
  amid = () => false;   // of which parts of an answer only the first half, or nothing, comes through
  refuses = false;      // no connection comes through
  number = 0;           // of answers that were cut
  #sockets = new Set();

  static async start(server) {
    const cutter = new Cutter();
    cutter.proxy = net.createServer(socket => cutter.#pass(socket, server.port)).listen(0, '127.0.0.1');
    await once(cutter.proxy, 'listening');
    return cutter;
  }

  get url() { return `http://127.0.0.1:${this.proxy.address().port}`; }

  #pass(socket, port) {
    if (this.refuses) return socket.destroy();
    const onward = net.connect(port, '127.0.0.1');
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket) && onward.destroy());
    for (const one of [socket, onward]) one.on('error', () => socket.destroy());
    socket.pipe(onward);
    onward.on('end', () => socket.end()).on('data', part => {
      if (!this.amid(String(part))) return socket.write(part);
      const come = part.subarray(0, this.number++ % 2 * part.length / 2);
      return socket.write(come, () => socket.destroy());
    });
  }

  /** Ends all connections, and refuses others as long as it is true. */
  cut(refuses) {
    this.refuses = refuses;
    for (const socket of this.#sockets) socket.destroy();
  }

  async close() {
    this.cut(true);
    await new Promise(done => this.proxy.close(done));
  }
}
