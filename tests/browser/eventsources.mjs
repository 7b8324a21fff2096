// The clients of event streams of npm, and those of PyPI (eventsources.py).
import {fetchEventSource} from '@microsoft/fetch-event-source';
import polyfill from 'event-source-polyfill';
import {EventSource} from 'eventsource';
import EventSource2 from 'eventsource2';
import {EventSource as EventSource4} from 'eventsource4';
import launchdarkly from 'launchdarkly-eventsource';
import ReconnectingEventSource from 'reconnecting-eventsource';
import {SOURCE, run} from './support.mjs';

export const END = 'end';

/** What a constructor of the WHATWG's interface hears. */
const by = (Client, options) => url => new Promise((done, fail) => {
  const source = new Client(url, options), heard = [];
  source.onmessage = ({data, lastEventId}) => {
    heard.push([data, lastEventId]);
    if (data !== END) return;
    source.close();
    done(heard);
  };
  source.onerror = event => fail(new Error(event.message ?? event.error ?? 'the stream has ended'));
});

/** It needs a page. */
async function byFetch(url) {
  Object.assign(globalThis, {window: globalThis, document: new EventTarget()});
  const heard = [], end = new AbortController();
  await fetchEventSource(url, {
    signal: end.signal, openWhenHidden: true,
    onmessage({data, id}) {
      heard.push([data, id]);
      if (data === END) end.abort();
    },
  });
  return heard;
}

export const CLIENTS = {
  'eventsource 2': by(EventSource2), 'eventsource 3': by(EventSource), 'eventsource 4': by(EventSource4),
  'launchdarkly-eventsource': by(launchdarkly.EventSource ?? launchdarkly),
  'event-source-polyfill': by(polyfill.EventSourcePolyfill),
  'reconnecting-eventsource': by(ReconnectingEventSource.default ?? ReconnectingEventSource,
    {eventSourceClass: EventSource, max_retry_time: 3e4}),
  '@microsoft/fetch-event-source': byFetch,
};

/** What each client of PyPI hears. */
export async function inPython(url) {
  const {stdout} = await run(`${SOURCE}/target/python/bin/python`, [new URL('eventsources.py', import.meta.url).pathname, url],
    {maxBuffer: 1 << 24});
  return JSON.parse(stdout);
}
