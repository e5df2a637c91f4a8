// Compiled, never run: the same types by way of require().

import brood = require('../../index.js');
import cluster = require('../../cluster.js');

export const child: brood.ChildProcess = brood.spawn('true', { limits: { core: 0 } });
export const gone: number = brood.killTree(child);
export const worker: ReturnType<typeof cluster.fork> = cluster.fork();
export const same: brood.BroodCluster = cluster;
