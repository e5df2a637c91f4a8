'use strict';
// Puts brood in this process and keeps it out of the processes below: it is loaded through
// NODE_OPTIONS, which it removes. Worker threads inherit the option itself and load it again.

delete process.env.NODE_OPTIONS;
require(process.env.BROOD_CONFORMANCE_PRELOAD);
