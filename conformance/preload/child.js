'use strict';
// Leaves this process stock and puts brood in the processes below, by what it hands them in
// NODE_OPTIONS once this one has already read its own.

process.env.NODE_OPTIONS = `--require=${process.env.BROOD_CONFORMANCE_PRELOAD}`;
