'use strict';
// What brood's ChildProcess needs of Node's. It is loaded before `register` puts brood's class into
// the built-in module.

const { ChildProcess } = require('node:child_process');

// The symbol a `using` declaration calls. Node's own method tells, as the global may lack it (Node
// 20 in a vm context).
const [dispose = Symbol.dispose] = Object.getOwnPropertySymbols(ChildProcess.prototype);

module.exports = { ChildProcess, dispose };
