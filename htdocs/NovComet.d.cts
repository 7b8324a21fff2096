// Types of NovComet.cjs, the same client for require.
export * from './NovComet.js';

declare const NovComet: typeof globalThis.NovComet;
export default NovComet;
