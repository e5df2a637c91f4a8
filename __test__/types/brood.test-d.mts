// Compiled, never run: brood's types can stand where Node's stand and the other way round, and what
// brood adds is there.

import * as stock from 'node:child_process';
import type { Cluster } from 'node:cluster';
import brood, * as named from '../../index.js';
import {
  ChildProcess,
  adoptChannel,
  cluster,
  diagnostics,
  exec,
  execFile,
  fork,
  killTree,
  releaseBuffer,
  sharedBuffer,
  spawn,
  spawnSync,
} from '../../index.js';
import stockCluster from 'node:cluster';
import clusterAlone, { setupPrimary, stats, type WorkerStats } from '../../cluster.js';
import type {
  BroodCluster,
  BroodOptions,
  ForkOptions,
  Limits,
  SchedulingPolicy,
  SpawnOptions,
} from '../../index.js';

// Both ways.
export const broodAsStock: typeof stock = named;
export const defaultAsStock: typeof stock = brood;
export const stockAsBrood: Pick<typeof named, keyof typeof stock> = stock;
export const child: ChildProcess = stock.spawn('true');
export const stockChild: stock.ChildProcess = spawn('true');
export const options: SpawnOptions = {} as stock.SpawnOptions;
export const stockOptions: stock.ForkOptions = {} as ForkOptions;
export const lazyCluster: Cluster = cluster;

// Node's overloads keep their precision.
spawn('cat').stdin.end('text');
spawn('cat', { stdio: ['ignore', 'pipe', 'inherit'] }).stdout.on('data', () => {});
export const text: string = spawnSync('true', { encoding: 'utf8' }).stdout;
export const bytes: Buffer = spawnSync('true').stdout;
exec('true', (error, stdout) => stdout.trim() + String(error?.code));
export const promised: Promise<{ stdout: string; stderr: string }> = execFile.__promisify__('true');

// What brood adds.
const limits: Limits = {
  cpuSeconds: 2,
  memory: { soft: 1e9, hard: Infinity },
  openFiles: { hard: 64 },
  nice: 5,
  cpuAffinity: [0, 1],
  oomScoreAdj: 500,
  cgroup: '/sys/fs/cgroup/jobs',
};
const extras: BroodOptions = { dieWithParent: true, limits, background: true };
spawn('true', [], { ...extras, stdio: 'ignore' });
exec('true', { limits });
execFile('true', ['x'], { dieWithParent: true, encoding: 'buffer' }, (error, stdout) =>
  stdout.at(0),
);
const forked = fork(new URL('file:///module.js'), { limits, maxMessageSize: 1 << 20 });
export const sent: Promise<void> = forked.sendAsync({ hello: 1 });
export const used: number | undefined = forked.resourceUsage?.maxRSS;
export const open: number | null = diagnostics().counters.descriptors;
export const sentUp: Promise<void> | undefined = process.sendAsync?.({ hello: 1 });
forked.on('drain', () => forked.channel?.busyPoll(50));
process.on('drain', () => process.channel?.busyPoll(50));
export const adopted: boolean = adoptChannel();
export const count: number = killTree(forked, 'SIGKILL');

// @ts-expect-error a limit that does not exist
spawn('true', { limits: { colour: 1 } });
// @ts-expect-error not a child
killTree(5);

// The cluster: Node's, and what brood adds.
export const sameCluster: BroodCluster = clusterAlone;
clusterAlone.setupPrimary({
  exec: 'worker.js',
  listen: ({ port }, { id }) => port === 8000 && id > 0,
  listenerGrace: Infinity,
  scheduling: { 8000: 'sticky', '/run/a.sock': cluster.SCHED_RR },
  dieWithParent: true,
});
setupPrimary({ silent: true, activation: { web: 8080 }, maxMessageSize: 1 << 20 });
// @ts-expect-error workers are started at once
setupPrimary({ background: true });
cluster.schedulingPolicy = 'least-connections';
export const policy: number = cluster.schedulingPolicy;
export const known: WorkerStats[] = stats();
// Under register.
export const registered: WorkerStats[] = stockCluster.stats();
cluster.setScheduler('power-of-two', { path: '/run/a.sock' });
// @ts-expect-error the operating system's choice is settled when a socket is bound
cluster.setScheduler('none');
const clusterWorker = cluster.fork({ NAME: 'value' });
for (const peer of [undefined, forked, clusterWorker, process]) {
  const shared: Buffer = sharedBuffer(1 << 20, peer);
  forked.send(shared);
}
// @ts-expect-error: not a process
sharedBuffer(1, 'child');
const released: boolean = releaseBuffer(new Float64Array(8)) && releaseBuffer(new ArrayBuffer(8));
// @ts-expect-error: no memory
releaseBuffer('text');
clusterWorker.weight = 3;
clusterWorker.draining = true;
cluster.on('listening', (worker, { port }) => worker.send({ port }));
export const reached: number = cluster.broadcast({ hello: 1 });
export const busy: (number | null)[] = stats().map((entry) => entry.eventLoopUtilization);
export const policies: SchedulingPolicy[] = cluster.listeningSockets().map((entry) => entry.policy);
