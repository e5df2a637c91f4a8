'use strict';
// Leaves this process stock and puts brood in the processes below, by what it hands them in
// NODE_OPTIONS once this one has already read its own.

const path = require('node:path');

process.env.NODE_OPTIONS = `--require=${path.resolve(__dirname, '..', '..', 'register.js')}`;
