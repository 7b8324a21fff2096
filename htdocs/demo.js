// The demo page: a message box, the log of a client, and other ways to publish and to receive.
'use strict';
const $ = selector => document.querySelector(selector), $$ = selector => [...document.querySelectorAll(selector)];
const url = new URL('comet.cgi', location).href;
const topics = new Map();     // topic → its row in the list
const notes = new Map();      // topic and cursor of an event → its times and log lines
let wanted = true;            // false after Stop
let failures = 0;             // publishes without success, since the last success
let directory = null;         // of the event files, if the server told it

const words = {
  connecting: 'connecting …', waiting: 'connected', queued: 'waiting for a free slot',
  offline: 'no connection, retrying', stopped: 'stopped',
};

function element(name, text, className = '') {
  return Object.assign(document.createElement(name), {textContent: text, className});
}

function flash(node) {
  node.classList.remove('flash');
  void node.offsetWidth;      // restarts the animation
  node.classList.add('flash');
}

const ms = time => `${time.toFixed(time < 10 ? 1 : 0)} ms`;

// Received events

/** The times and log lines of an event. The publish and the clients may finish in any order. */
function note(id, cursor) {
  const key = JSON.stringify([id, cursor]), known = notes.get(key) ?? {lines: []};
  notes.set(key, known);
  if (notes.size > 1000) notes.delete(notes.keys().next().value);
  return known;
}

function showTime({span, at, receiver}, {sent, first}) {
  if (sent === undefined) {
    span.textContent = at > first ? `from elsewhere, +${ms(at - first)}` : 'from elsewhere';
  } else {
    span.textContent = `from here, ${ms(at - sent)}`;
    span.className = 'here';
    receiver.times.push(at - sent);
    receiver.summarize();
  }
}

/** A client and its log. */
class Receiver {
  constructor(node, options) {
    Object.assign(this, {node, count: 0, times: []});
    this.log = node.querySelector('ol');
    this.client = new NovComet.Client('comet.cgi', options)
      .on('state', state => this.showState(state))
      .on('error', error => this.showTrouble(`Not receiving: ${error.message}`));
    node.querySelector('.clear').addEventListener('click', () => this.clear());
  }

  run(isWanted) {
    isWanted ? this.client.run() : this.client.stop();
  }

  subscribe(id) {
    this.client.subscribe(id, (k, event) => this.receive(event));
  }

  receive(event) {
    const at = performance.now(), span = element('span', ''), known = note(event.id, event.cursor);
    this.count++;
    this.write(event, span);
    this.summarize();
    known.first ??= at;
    known.lines.push({span, at, receiver: this});
    showTime(known.lines.at(-1), known);
  }

  write({id, data, gap}, span) {
    const line = element('li', '', 'flash'), origin = element('small', '');
    if (gap) line.append(element('em', 'earlier events may be missing'));
    origin.append(element('b', id), ' · ', span);
    line.append(element('time', new Date().toTimeString().slice(0, 8)),
      data === undefined ? element('i', 'an event without a message') : element('q', data), origin);
    this.log.prepend(line);
    while (this.log.children.length > 200) this.log.lastChild.remove();
  }

  summarize() {
    const {count, times} = this, median = [...times].sort((a, b) => a - b)[times.length >> 1];
    this.node.querySelector('output').value = count === 0 ? '' :
      `${count} ${count === 1 ? 'event' : 'events'}` + (times.length ? `, median ${ms(median)}` : '');
  }

  clear() {
    this.log.replaceChildren();
    Object.assign(this, {count: 0, times: []});
    this.summarize();
  }

  showState(state) {
    const node = this.node.querySelector('.state');
    node.textContent = words[state];
    node.dataset.state = state;
    if (state !== 'offline') this.showTrouble('');
  }

  showTrouble(text) {
    this.node.querySelector('.trouble').textContent = text;
  }
}

const receivers = [new Receiver($('#received'))];     // from the first comparison on, also one that polls

function compare() {
  if (receivers.length === 1) {
    receivers.push(new Receiver($('#compare'), {transport: 'poll', shared: false}));
    for (const id of topics.keys()) receivers[1].subscribe(id);
  }
  receive();
}

function receive() {
  const [page, polls] = receivers, isCompared = $('#compare').open && !document.hidden;
  page.run(wanted);
  polls?.run(wanted && isCompared);
  $('#toggle').textContent = wanted ? 'Stop receiving' : 'Start receiving';
}

// Published events. A failure stays on the page until a publish succeeds.

const named = text => text === undefined ? 'the event without a message' : `“${text}”`;

function showPublished(text) {
  failures = 0;
  $('#failure').textContent = '';
  $('#sent').value = `Published: ${named(text)}`;
}

function showFailure(text, error) {
  const earlier = failures++ ? `, and ${failures - 1} before` : '';
  $('#failure').textContent = `Not published: ${named(text)}${earlier}. ${error.message}`;
  $('#sent').value = '';
}

async function publish(id, text) {
  const sent = performance.now();
  $('#sent').value = `Publishing ${named(text)} …`;
  try {
    const {k} = await NovComet.publish(id, text);
    showPublished(text);
    const known = Object.assign(note(id, k[id]), {sent});
    for (const line of known.lines) showTime(line, known);
  } catch (error) {
    showFailure(text, error);
  }
}

function say() {
  publish($('#to').value, $('#text').value || undefined);
  if (document.activeElement === $('#text')) $('#text').select();
}

// Topics

function subscribe(id) {
  if (topics.has(id)) return flash(topics.get(id));
  const row = element('li', ''), remove = element('button', '✕');
  remove.setAttribute('aria-label', `unsubscribe from ${id}`);
  remove.addEventListener('click', () => unsubscribe(id));
  row.append(element('bdi', id), remove);
  topics.set(id, row);
  $('#topics').append(row);
  $('#to').append(Object.assign(element('option', id), {value: id}));
  for (const receiver of receivers) receiver.subscribe(id);
  showTopics();
}

function unsubscribe(id) {
  for (const {client} of receivers) client.unsubscribe(id);
  const next = topics.get(id).nextElementSibling;
  topics.get(id).remove();
  topics.delete(id);
  [...$('#to').options].find(({value}) => value === id).remove();
  showTopics();
  (next && topics.size > 1 ? next.querySelector('button') : $('#id')).focus();
}

/** The last topic stays, and there is nothing to choose. */
function showTopics() {
  for (const node of [$('#to'), ...$$('#topics button')]) node.hidden = topics.size === 1;
  showLines();
}

// The shell

const quote = text => /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
const query = id => `subscribed[${encodeURIComponent(id)}]`;

const lines = {
  curl: id => `curl ${/^[\w.-]+$/.test(id) ? '-d' : '--data-urlencode'} ${quote(`publish=${id}`)} -d 'data=Hello from a shell' ${quote(url)}`,
  touch: id => `touch ${quote(`${directory}/${id.replaceAll('%', '%25').replaceAll('/', '%2F')}.comet`)}`,
  wait: id => `curl -g ${quote(`${url}?${query(id)}=0`)}`,
  stream: id => `curl -gN ${quote(`${url}?${query(id)}=earliest&stream=1`)}`,
};

function showLines() {
  for (const line of $$('[data-line]')) {
    line.querySelector('code').textContent = lines[line.dataset.line]($('#to').value);
  }
}

/** The server tells its store only where that is safe. */
async function findStore() {
  try {
    const {store} = await (await fetch('comet.cgi?about=1')).json();
    directory = store?.startsWith('file://') ? decodeURIComponent(new URL(store).pathname) : null;
  } catch {}                  // an older server
  $('[data-line=touch]').hidden = directory === null;
  $('#untold').hidden = directory !== null;
  showLines();
}

async function copy(button) {
  const code = button.parentNode.querySelector('code');
  getSelection().selectAllChildren(code);
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    document.execCommand('copy');     // without HTTPS there is no clipboard API
  }
  button.textContent = 'Copied';
  setTimeout(() => { button.textContent = 'Copy'; }, 1500);
}

// The phone

const isLoopback = /^(localhost|.*\.localhost|127\..*|\[::1\])$/.test(location.hostname);

function showCode() {
  const rows = qrCode(location.href), size = rows?.length + 8;
  $('#code svg').toggleAttribute('hidden', !rows);
  if (!rows) return;
  $('#code svg').setAttribute('viewBox', `-4 -4 ${size} ${size}`);
  $('#code path').setAttribute('d', rows.flatMap((row, y) => row.map((dark, x) => dark ? `M${x} ${y}h1v1h-1z` : '')).join(''));
}

function showAddress() {
  $('#code').hidden = isLoopback;
  $('#loopback').hidden = !isLoopback;
  $('#code a').textContent = location.href;
  $('#loopback bdi').textContent = location.host;
  if (!isLoopback) showCode();
}

// The page

const on = (selector, type, f) => $(selector).addEventListener(type, event => {
  event.preventDefault();
  f();
});

on('#say', 'submit', say);
on('#add', 'submit', () => {
  subscribe($('#id').value);
  $('#id').value = '';
});
on('#to', 'change', showLines);
on('#toggle', 'click', () => {
  wanted = !wanted;
  receive();
});
on('#another', 'click', () => window.open(location.href, '_blank', 'noopener,popup,width=480,height=760'));
on('#compare', 'toggle', compare);
document.addEventListener('visibilitychange', receive);
for (const button of $$('.copy')) button.addEventListener('click', () => copy(button));
for (const name of ['NovComet.js', 'comet.cgi']) {
  $('#example').textContent = $('#example').textContent.replace(name, new URL(name, location).pathname);
}

NovComet.init('comet.cgi');
subscribe('demo');
showAddress();
findStore();
receive();
