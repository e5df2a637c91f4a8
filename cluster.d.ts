// The types of `brood/cluster`, which is brood's `cluster` by itself.

import type { BroodCluster } from './index.js';

declare const cluster: BroodCluster;

export = cluster;
