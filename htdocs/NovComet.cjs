// The same client for require: const NovComet = require('novcomet');
require('./NovComet.js');

// TypeScript's `import NovComet` asks for `default`.
module.exports = Object.defineProperty(globalThis.NovComet, 'default', {value: globalThis.NovComet});
