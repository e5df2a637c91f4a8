// The same for import: each name, and the whole as default.

import cluster from './cluster.js';

export const {
  SCHED_LEAST_CONNECTIONS,
  SCHED_NONE,
  SCHED_POWER_OF_TWO,
  SCHED_RR,
  SCHED_RR_STRICT,
  SCHED_STICKY,
  Worker,
  broadcast,
  disconnect,
  fork,
  isMaster,
  isPrimary,
  isWorker,
  listeningSockets,
  schedulingPolicy,
  setScheduler,
  settings,
  setupMaster,
  setupPrimary,
  stats,
  worker,
  workers,
} = cluster;

export default cluster;
