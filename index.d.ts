// The types of brood: those of node:child_process and node:cluster, unchanged, and what brood adds to
// them. The additions are made in place, because under `brood/register` the built-in modules'
// functions are brood's, and no overload has to be written twice.

import type { Address, Cluster, Worker } from 'node:cluster';

/** One number for both limits, or each by itself; the one left out equals the other. */
export type Limit = number | { soft?: number; hard?: number };

/**
 * What a child may use. Numbers are integers; `Infinity` takes a limit away where the system allows
 * it.
 */
export interface Limits {
  /**
   * Seconds of processor time; past the soft limit SIGXCPU, past the hard one SIGKILL (RLIMIT_CPU).
   */
  cpuSeconds?: Limit;
  /** Bytes of address space (RLIMIT_AS). Node itself needs tens of gigabytes of it. */
  memory?: Limit;
  /** Open descriptors (RLIMIT_NOFILE). */
  openFiles?: Limit;
  /** Processes and threads of the child's user, not of the child alone (RLIMIT_NPROC). */
  processes?: Limit;
  /** Bytes of any file the child writes (RLIMIT_FSIZE). */
  fileSize?: Limit;
  /** Bytes of a core dump; 0 for none (RLIMIT_CORE). */
  core?: Limit;
  /** Scheduling priority, from -20 (first) to 19 (last). */
  nice?: number;
  /** The processors the child may run on, by number. */
  cpuAffinity?: readonly number[];
  /** How readily the kernel kills the child when memory runs out, from -1000 (never) to 1000. */
  oomScoreAdj?: number;
  /** The absolute path of a cgroup (version 2) that was delegated to this process. */
  cgroup?: string;
}

/** What brood's functions take beside Node's options. */
export interface BroodOptions {
  /** Kill the child when this process ends, however that happens, SIGKILL included. */
  dieWithParent?: boolean | undefined;
  /** What the child may use. */
  limits?: Limits | undefined;
  /**
   * Have another thread start the program: `pid` is undefined until 'spawn' is emitted, and every
   * failure of the start is an 'error' event. Without effect on the synchronous functions.
   */
  background?: boolean | undefined;
}

declare module 'node:child_process' {
  interface CommonOptions extends BroodOptions {}

  interface MessagingOptions {
    /** Bytes of the largest message taken from the child, which is cut off beyond; at most 2 ** 30. */
    maxMessageSize?: number | undefined;
    /**
     * For fork(): whether the channel may use brood's own framing where the child has brood, too
     * (default), or the newest version of it to use; 0 is Node's protocol.
     */
    upgrade?: boolean | number | undefined;
    /**
     * Microseconds, at most 1_000_000, the event loop may look for the child's messages before it
     * sleeps.
     */
    busyPoll?: number | undefined;
  }

  interface Control {
    /**
     * Has the event loop look for messages for up to that many microseconds (at most 1_000_000)
     * before it sleeps; 0 ends it. Only on a channel of brood's.
     */
    busyPoll(micros: number): void;
  }

  interface ChildProcessEventMap {
    /** After send() has returned false: everything queued has been written. */
    drain: [];
  }

  interface ChildProcess {
    /** What the child used, once it has ended: the fields of process.resourceUsage(). */
    readonly resourceUsage?: NodeJS.ResourceUsage;

    /** send() as a promise, which is fulfilled when the message has been handed to the kernel. */
    sendAsync(
      message: Serializable,
      sendHandle?: SendHandle,
      options?: MessageOptions,
    ): Promise<void>;
  }

  interface SpawnSyncReturns<T> {
    /** What the child used; absent when it could not be started. */
    readonly resourceUsage?: NodeJS.ResourceUsage;
  }
}

declare module 'node:process' {
  interface ProcessEventMap {
    /** On a channel of brood's, after send() has returned false: everything queued has been written. */
    drain: [];
  }
}

declare global {
  namespace NodeJS {
    interface Process {
      /** send() as a promise, in a child whose channel is brood's. */
      sendAsync?(
        message: Serializable,
        sendHandle?: SendHandle,
        options?: MessageOptions,
      ): Promise<void>;
    }
  }
}

export * from 'node:child_process';

import type { ChildProcess, MessageOptions, SendHandle, Serializable } from 'node:child_process';

/**
 * Sends a signal to a child and to everything it has started, also to what has lost its parent
 * since, but not to what was deliberately detached. Returns how many processes got it: 0 when the
 * child has already ended.
 */
export function killTree(child: ChildProcess, signal?: NodeJS.Signals | number): number;

/** What diagnostics() says. */
export interface Diagnostics {
  /** brood's version. */
  version: string;
  /** The path of the compiled addon. */
  binary: string;
  /** Node's version. */
  node: string;
  /** libuv's version. */
  libuv: string;
  /** The kernel's release. */
  kernel: string;
  /** Whether brood stands in the place of the built-in module. */
  registered: boolean;
  /** Kernel features that are missing here and replaced by something slower. */
  fallbacks: string[];
  counters: {
    /** Open descriptors of this process; null where they cannot be counted. */
    descriptors: number | null;
    /** Living children of this thread. */
    children: number;
    /** Open channels of this thread. */
    channels: number;
    /** Open channels of all threads. */
    processChannels: number;
    /** Channels of this thread that have come to speak brood's own framing, since it began. */
    upgradedChannels: number;
    /** Ended or abandoned children that the next spawn reaps. */
    orphans: number;
  };
}

/** One object about brood, its surroundings and what it holds: for a bug report or a health page. */
export function diagnostics(): Diagnostics;

/**
 * In a child that Node has given a channel: puts brood's end in the place of Node's, without losing
 * a message. Returns false, with everything as it was, when there is no channel or its state is not
 * one that can be taken over. `brood/register` does this by itself.
 */
export function adoptChannel(): boolean;

/**
 * A Buffer to be filled in place. Sent whole inside an 'advanced' message to a process that has
 * brood, too, its memory is handed over without a copy, and the Buffer is empty afterwards.
 *
 * With `peer`, the process it is meant for, it lies in memory that is used again and again: its bytes
 * are those of an earlier message to that peer, which can read it at any time, and only to that peer
 * is it handed over. Without `peer` its bytes are zero.
 *
 * The channel of a cluster's Worker has no such memory: for one it is a zeroed Buffer like any other,
 * and is copied when it is sent.
 */
export function sharedBuffer(size: number, peer?: ChildProcess | Worker | NodeJS.Process): Buffer;

/**
 * Gives back the memory of a large Buffer, typed array or ArrayBuffer that has come in a message, or
 * that `sharedBuffer()` has made, without waiting for garbage collection. It, and all else that lies
 * in the same ArrayBuffer, is empty afterwards; nothing that is still going on may use it. Returns
 * false, and does nothing, for any other.
 */
export function releaseBuffer(buffer: ArrayBufferLike | NodeJS.ArrayBufferView): boolean;

/**
 * How connections are shared out: left to the operating system; in turn, skipping workers that are
 * behind; strictly in turn; to whoever has the fewest; to the better of two chosen at random; always
 * the same worker for one client address.
 */
export type SchedulingPolicy =
  'none' | 'rr' | 'rr-strict' | 'least-connections' | 'power-of-two' | 'sticky';

/** What a worker asks to bind. */
export interface ListenRequest {
  /** An IP address, or the absolute path of a Unix socket; absent for every address. */
  readonly address?: string | null | undefined;
  /** 0 for any free port, -1 for a Unix socket. */
  readonly port?: number | null | undefined;
  readonly addressType?: Address['addressType'] | null | undefined;
  /** The number of a descriptor of the primary's to listen on, in the place of an address. */
  readonly fd?: number | undefined;
}

/** What the primary knows of one worker; null is what it cannot know, as the worker is stock Node. */
export interface WorkerStats {
  id: number;
  pid: number | null;
  state: string;
  weight: number;
  draining: boolean;
  /** Whether the worker runs brood and gets connections on a lane of its own. */
  lane: boolean;
  /** Connections it has taken since it started. */
  accepted: number | null;
  /** Connections that are open in it. */
  inFlight: number | null;
  /** Connections handed to it that it has not yet taken. */
  waiting: number | null;
  /** Connections it has given back, because its server was closing or full. */
  handedBack: number | null;
  /** The part of its time that its event loop was busy, from 0 to 1. */
  eventLoopUtilization: number | null;
  /** Bytes of memory it occupies; null when it has ended. */
  memory: number | null;
}

/** One socket that workers listen on. */
export interface ListeningSocket {
  /** An IP address, or the path of a Unix socket. */
  address: string | null;
  /** null for a Unix socket. */
  port: number | null;
  policy: SchedulingPolicy;
  /** How many workers share it. */
  workers: number;
  /** Connections accepted so far; null where the workers accept them themselves. */
  accepted: number | null;
  /** Connections accepted that no worker has been given yet. */
  waiting: number | null;
}

/** What setupPrimary() takes beside Node's settings. */
export interface BroodClusterSettings extends Omit<BroodOptions, 'background'> {
  /** The policies of single ports and Unix paths. */
  scheduling?: { readonly [portOrPath: string]: SchedulingPolicy | number } | undefined;
  /** Whether a worker may bind what it asks for; anything but true is EACCES. Default: it may. */
  listen?: ((request: ListenRequest, worker: Worker) => boolean) | undefined;
  /**
   * Milliseconds a socket outlives its last worker when that has crashed, so that clients wait for a
   * replacement. Default 10000; 0 is Node's behaviour, Infinity keeps it until cluster.disconnect().
   */
  listenerGrace?: number | undefined;
  /**
   * Which listening socket that the service manager has passed, by name, stands for which port or
   * path. Sockets that are bound to what a worker asks for need no name.
   */
  activation?:
    { readonly [name: string]: number | string | { port: number; address?: string } } | undefined;
  /** Bytes of the largest message taken from a worker, which is cut off beyond. */
  maxMessageSize?: number | undefined;
}

/** What brood's cluster has beside Node's. */
export interface ClusterAdditions {
  readonly SCHED_RR_STRICT: number;
  readonly SCHED_LEAST_CONNECTIONS: number;
  readonly SCHED_POWER_OF_TWO: number;
  readonly SCHED_STICKY: number;
  /** Sends one message to every connected worker; returns how many that are. */
  broadcast(message: Serializable): number;
  /** What the primary knows of each worker. */
  stats(): WorkerStats[];
  /** The sockets that workers listen on. */
  listeningSockets(): ListeningSocket[];
  /**
   * Sets the policy at run time, of all listening sockets or of those at one port or path, and of
   * those to come.
   */
  setScheduler(
    policy: Exclude<SchedulingPolicy, 'none'> | number,
    at?: { port: number } | { path: string },
  ): void;
}

declare module 'node:cluster' {
  interface ClusterSettings extends BroodClusterSettings {}

  interface Cluster extends ClusterAdditions {}

  interface Worker {
    /** In the primary: how many connections the worker gets compared with others, 1 to 65535. */
    weight: number;
    /** In the primary: whether the worker gets no new connections. */
    draining: boolean;
  }
}

/** brood's cluster: all of Node's, and what it adds. */
export interface BroodCluster extends Cluster, ClusterAdditions {
  /** Settled by the first fork() or setupPrimary(); may be set by name. */
  get schedulingPolicy(): number;
  set schedulingPolicy(policy: number | SchedulingPolicy);
}

/** The cluster module, loaded at first use. */
export const cluster: BroodCluster;
