'use strict';
// What brood needs of Node's own child_process, taken when brood is loaded: `register` later puts
// brood's functions into that very object.

const stock = require('node:child_process');

const { ChildProcess, _forkChild } = stock;

// The symbol a `using` declaration calls. Node's own method tells, as the global may lack it (Node
// 20 in a vm context).
const [dispose = Symbol.dispose] = Object.getOwnPropertySymbols(ChildProcess.prototype);

module.exports = { ChildProcess, _forkChild, dispose };
