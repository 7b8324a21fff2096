// The valid and invalid lines of a TypeScript page. They are compiled and never run.
import NovComet, {Client, type Event, type Failure, type Published, type State, type Transport} from '../../htdocs/NovComet.mjs';

NovComet.init('comet.cgi').subscribe('a', (k, event: Event) => {
  const cursor: number = event.cursor + (k[event.id] ?? 0);
  const data: string | undefined = event.data;
  const gap: boolean = event.gap;
  console.log(cursor, data, gap);
}).run();

const client: Client = new NovComet.Client('comet.php', {fetch, setTimeout, clearTimeout, Date, Math});
client.on('state', (state: State) => state === 'waiting').on('error', (error: Failure) => error.status);
client.subscribe('b', () => {}, 1795415403.163846).unsubscribe('b').stop();
client.subscribe('c', () => {}, 'earliest');
client.sleepTime = 1000;
client.transport = 'poll';
const transport: Transport = new NovComet.Client('comet.cgi', {transport: 'stream'}).transport;

const {publish} = NovComet;
publish('a').then(({k}: Published) => k['a'], (error: Failure) => error.message);
publish('a', transport);
publish('a', 1);
publish('a', {text: transport});

const off: () => void = client.listen('d', (k, event) => event.json().text, 'latest');
off();
new NovComet.Client('comet.cgi', {
  shared: false, resume: 'session', credentials: 'include', token: async refused => refused ? 'new' : 'first',
});
client.on('error', ({code, url}) => code === 'html' && url);

// @ts-expect-error: there is no such event
client.on('message', () => {});
// @ts-expect-error: only the client sets it
client.state = 'waiting';
// @ts-expect-error: no message
publish('a', 1n);
// @ts-expect-error: no callback
client.listen('a');
// @ts-expect-error: no transport
client.transport = 'socket';

globalThis.NovComet.run();
