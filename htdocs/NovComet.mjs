// The same client as an ES module: import NovComet, {Client} from './NovComet.mjs';
import './NovComet.js';

export default globalThis.NovComet;
export const {Client} = globalThis.NovComet;

// The shared worker's script: a bundler copies it.
Client.script = new URL('./NovComet.js', import.meta.url).href;
