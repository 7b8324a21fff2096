// What a page in TypeScript may write; compiled, never run.
import NovComet, {Client, type Event, type Failure, type State} from '../../htdocs/NovComet.mjs';

NovComet.init('comet.cgi').subscribe('a', (k, event: Event) => {
  const cursor: number = event.cursor + (k[event.id] ?? 0);
  const data: string | undefined = event.data;
  console.log(cursor, data);
}).run();

const client: Client = new NovComet.Client('comet.php', {fetch, setTimeout, clearTimeout, Date, Math});
client.on('state', (state: State) => state === 'waiting').on('error', (error: Failure) => error.status);
client.subscribe('b', () => {}, 1795415403.163846).unsubscribe('b').stop();
client.sleepTime = 1000;

const {publish} = NovComet;
publish('a').then(() => {}, (error: Failure) => error.message);

// @ts-expect-error: there is no such event
client.on('message', () => {});
// @ts-expect-error: the client says it
client.state = 'waiting';

globalThis.NovComet.run();
