// The types of brood: those of node:child_process, unchanged, and what brood adds to them.
// The additions to options and to ChildProcess are made in place, because under `brood/register`
// the built-in module's functions are brood's, and no overload has to be written twice.

import type { Cluster } from 'node:cluster';

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
}

declare module 'node:child_process' {
  interface CommonOptions extends BroodOptions {}

  interface MessagingOptions {
    /** Bytes of the largest message taken from the child, which is cut off beyond; at most 2 ** 30. */
    maxMessageSize?: number | undefined;
    /**
     * Whether the channel may use brood's own framing where the child has brood, too (default), or
     * the newest version of it to use.
     */
    upgrade?: boolean | number | undefined;
    /** Microseconds the event loop may look for the child's messages before it sleeps. */
    busyPoll?: number | undefined;
  }

  interface Control {
    /**
     * Has the event loop look for messages for up to that many microseconds before it sleeps; 0 ends
     * it. Only on a channel of brood's.
     */
    busyPoll(micros: number): void;
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

export * from 'node:child_process';

import type { ChildProcess } from 'node:child_process';

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
    /** Open descriptors of this process. */
    descriptors: number;
    /** Living children of this thread. */
    children: number;
    /** Open channels of this thread. */
    channels: number;
    /** Open channels of all threads. */
    processChannels: number;
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
 * A zeroed Buffer to be filled in place. Sent whole inside an 'advanced' message to a process that
 * has brood, too, its memory is handed over without a copy, and the Buffer is empty afterwards.
 */
export function sharedBuffer(size: number): Buffer;

/** The cluster module, loaded at first use. */
export const cluster: Cluster;
