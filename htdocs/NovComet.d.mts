// Types of NovComet.mjs, the same client as an ES module.
export * from './NovComet.js';

declare const NovComet: typeof globalThis.NovComet;
export default NovComet;
