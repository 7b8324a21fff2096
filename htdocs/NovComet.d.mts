// Types of NovComet.mjs: what NovComet.js makes a global, as a module.
export * from './NovComet.js';

declare const NovComet: typeof globalThis.NovComet;
export default NovComet;
