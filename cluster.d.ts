// The types of `brood/cluster`, which is brood's `cluster` by itself.

import type * as brood from './index.js';

declare const cluster: brood.BroodCluster;

declare namespace cluster {
  export type BroodCluster = brood.BroodCluster;
  export type BroodClusterSettings = brood.BroodClusterSettings;
  export type ListenRequest = brood.ListenRequest;
  export type ListeningSocket = brood.ListeningSocket;
  export type SchedulingPolicy = brood.SchedulingPolicy;
  export type WorkerStats = brood.WorkerStats;
}

export = cluster;
