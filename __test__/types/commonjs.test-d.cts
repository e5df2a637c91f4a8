// Compiled, never run: the same types by way of require().

import brood = require('../../index.js');

export const child: brood.ChildProcess = brood.spawn('true', { limits: { core: 0 } });
export const gone: number = brood.killTree(child);
