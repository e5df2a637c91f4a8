'use strict';
// What Node does not have: limits, children that die with their parent, whole trees killed.

const { once } = require('node:events');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');
const { brood, stock, textOf } = require('./side_by_side');

const BROOD = JSON.stringify(path.resolve(__dirname, '../..'));
const closed = (child) => once(child, 'close');

async function said(child) {
  const [text] = await Promise.all([textOf(child.stdout), closed(child)]);
  return text;
}

const sh = (code, options) => brood.spawn('/bin/sh', ['-c', code], options);

/** Resolves when the process is gone, or is a zombie that somebody else has to reap. */
async function gone(pid) {
  for (;;) {
    try {
      const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
      if (stat.slice(stat.lastIndexOf(')') + 2)[0] === 'Z') return;
    } catch {
      return;
    }
    await new Promise(setImmediate);
  }
}

async function linesOf(stream, count) {
  const lines = [];
  for await (const line of readline.createInterface({ input: stream })) {
    if (lines.push(line) === count) break;
  }
  return lines;
}

describe('limits', () => {
  test('of descriptors, files, processor time, processes and core dumps hold in the child', async () => {
    const limits = {
      openFiles: 50,
      fileSize: { soft: 4096, hard: Infinity },
      cpuSeconds: { soft: 7, hard: 9 },
      core: 0,
    };
    const text = await said(
      sh('ulimit -Sn; ulimit -Hn; ulimit -Sf; ulimit -St; ulimit -Ht; ulimit -Sc', { limits }),
    );
    expect(text.trim().split('\n')).toEqual(['50', '50', '8', '7', '9', '0']);
  });

  test('a child that uses more processor time is ended by the kernel', async () => {
    const child = sh('while :; do :; done', { limits: { cpuSeconds: 1 }, stdio: 'ignore' });
    const [, signal] = await closed(child);
    expect(['SIGXCPU', 'SIGKILL']).toContain(signal);
  });

  test('of memory make an allocation fail', () => {
    const limits = { memory: 2e8 };
    const { status } = brood.spawnSync(
      'dd',
      ['if=/dev/zero', 'of=/dev/null', 'bs=500M', 'count=1'],
      { limits },
    );
    expect(status).toBe(1);
  });

  test('of priority and processors hold in the child, for all kinds of start', () => {
    // Whoever runs the tests may have the lowest priority already.
    const limits = { nice: Math.min(os.getPriority() + 3, 19), cpuAffinity: [0] };
    const code = 'nice; grep Cpus_allowed_list /proc/self/status';
    const expected = `${limits.nice}\nCpus_allowed_list:\t0\n`;
    expect(brood.execSync(code, { limits }).toString()).toBe(expected);
    expect(brood.execFileSync('sh', ['-c', code], { limits }).toString()).toBe(expected);
  });

  test('of the out-of-memory killer are set', async () => {
    const child = brood.execFile('cat', ['/proc/self/oom_score_adj'], {
      limits: { oomScoreAdj: 700 },
    });
    expect(await said(child)).toBe('700\n');
  });

  test.each([
    [{ openFiles: -1 }, 'ERR_OUT_OF_RANGE', 'options.limits.openFiles'],
    [{ openFiles: 1.5 }, 'ERR_OUT_OF_RANGE', 'options.limits.openFiles'],
    [{ memory: '1g' }, 'ERR_INVALID_ARG_TYPE', 'options.limits.memory'],
    [{ core: null }, 'ERR_INVALID_ARG_TYPE', 'options.limits.core'],
    [{ core: { soft: 2, hard: 1 } }, 'ERR_OUT_OF_RANGE', 'options.limits.core.soft'],
    [{ core: {} }, 'ERR_INVALID_ARG_TYPE', 'options.limits.core.soft'],
    [{ nice: 20 }, 'ERR_OUT_OF_RANGE', 'options.limits.nice'],
    [{ oomScoreAdj: -1001 }, 'ERR_OUT_OF_RANGE', 'options.limits.oomScoreAdj'],
    [{ cpuAffinity: [] }, 'ERR_INVALID_ARG_VALUE', 'options.limits.cpuAffinity'],
    [{ cpuAffinity: [-1] }, 'ERR_OUT_OF_RANGE', 'options.limits.cpuAffinity[0]'],
    [{ cgroup: 'relative' }, 'ERR_INVALID_ARG_VALUE', 'options.limits.cgroup'],
    [{ cgroup: '/a\0b' }, 'ERR_INVALID_ARG_VALUE', 'options.limits.cgroup'],
    [{ colour: 1 }, 'ERR_INVALID_ARG_VALUE', 'colour'],
    [5, 'ERR_INVALID_ARG_TYPE', 'options.limits'],
  ])('%p is refused before anything is started', (limits, code, name) => {
    const attempt = () => brood.spawn('true', { limits });
    expect(attempt).toThrow(expect.objectContaining({ code }));
    expect(attempt).toThrow(name);
  });

  test('a cgroup that is not there is an error of the start', () => {
    const limits = { cgroup: '/sys/fs/cgroup/no/such/group/of/brood' };
    expect(brood.spawnSync('true', { limits }).error.code).toBe('ENOENT');
  });
});

test('maxMessageSize is a positive number of bytes', () => {
  for (const maxMessageSize of [0, -1, 1.5, 2 ** 31, '1']) {
    expect(() => brood.fork('module.js', { maxMessageSize })).toThrow('options.maxMessageSize');
  }
});

test.each([
  [-1, 'ERR_OUT_OF_RANGE'],
  [1.5, 'ERR_OUT_OF_RANGE'],
  [NaN, 'ERR_OUT_OF_RANGE'],
  ['1', 'ERR_INVALID_ARG_TYPE'],
])('upgrade: %p is neither a boolean nor a version', (upgrade, code) => {
  const attempt = () => brood.fork('module.js', { upgrade });
  expect(attempt).toThrow(expect.objectContaining({ code }));
  expect(attempt).toThrow('options.upgrade');
});

describe('dieWithParent', () => {
  test('ends the child when the parent is killed', async () => {
    const code = `
      const { spawn } = require(${BROOD});
      console.log(spawn('sleep', ['60'], { dieWithParent: true, stdio: 'ignore' }).pid);
      setInterval(() => {}, 1000);`;
    const parent = stock.spawn(process.execPath, ['-e', code]);
    const [pid] = await linesOf(parent.stdout, 1);
    parent.kill('SIGKILL');
    await closed(parent);
    await gone(pid);
  });

  test('does not end the child with the worker thread that started it', async () => {
    const code = `
      const { Worker } = require('node:worker_threads');
      const inThread = 'const { spawn } = require(' + ${JSON.stringify(BROOD)} + ');' +
        'const child = spawn("sleep", ["60"], { dieWithParent: true, stdio: "ignore" });' +
        'child.unref(); require("node:worker_threads").parentPort.postMessage(child.pid);';
      const worker = new Worker(inThread, { eval: true });
      worker.once('message', (pid) => worker.once('exit', () => {
        process.kill(pid, 0);
        console.log(pid);
      }));`;
    const parent = stock.spawn(process.execPath, ['-e', code], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const pid = Number(await said(parent));
    expect(pid).toBeGreaterThan(0);
    await gone(pid);
  });

  test('is a boolean', () => {
    const attempt = () => brood.spawn('true', { dieWithParent: 1 });
    expect(attempt).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }));
  });
});

describe('killTree', () => {
  test('ends the child and all below it, also what has lost its parent', async () => {
    // The first sleep is a grandchild, the second has lost its parent: the outer shell waits for the
    // end of the inner one before it prints.
    const child = sh('sleep 60 & echo $!; echo $(sh -c "sleep 60 >/dev/null & echo \\$!"); wait', {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const pids = await linesOf(child.stdout, 2);
    expect(brood.killTree(child, 'SIGKILL')).toBe(3);
    expect(child.killed).toBe(true);
    expect(await once(child, 'exit')).toEqual([null, 'SIGKILL']);
    await Promise.all(pids.map(gone));
  });

  test('leaves alone what was detached on purpose', async () => {
    const child = sh('setsid sleep 60 & echo $!; wait', { stdio: ['ignore', 'pipe', 'ignore'] });
    const [pid] = await linesOf(child.stdout, 1);
    brood.killTree(child, 'SIGKILL');
    await once(child, 'exit');
    process.kill(Number(pid), 'SIGKILL');
    await gone(pid);
  });

  test('sends SIGTERM when no signal is named, and nothing to a child that has ended', async () => {
    const child = brood.spawn('sleep', ['60'], { stdio: 'ignore' });
    expect(brood.killTree(child)).toBe(1);
    expect(await closed(child)).toEqual([null, 'SIGTERM']);
    expect(brood.killTree(child)).toBe(0);
  });

  const canUnmount = stock.spawnSync('unshare', ['--mount', 'true']).status === 0;

  (canUnmount ? test : test.skip)(
    'says that it cannot look where /proc is not mounted',
    async () => {
      const script = `
      const brood = require(${BROOD});
      const child = brood.spawn('sleep', ['1000']);
      try {
        brood.killTree(child);
      } catch (error) {
        console.log(error.code, error.syscall, child.kill());
      }`;
      const hidden = 'mount -t tmpfs none /proc && exec "$0" -e "$1"';
      const args = ['--mount', 'sh', '-c', hidden, process.execPath, script];
      const { stdout } = stock.spawnSync('unshare', args, { encoding: 'utf8' });
      expect(stdout).toBe('ENOENT killTree true\n');
    },
  );

  test('refuses what is no child and signals that do not exist', () => {
    const code = (name) => expect.objectContaining({ code: name });
    expect(() => brood.killTree(5)).toThrow(code('ERR_INVALID_ARG_TYPE'));
    expect(() => brood.killTree(new brood.ChildProcess(), 'SIGNONE')).toThrow(
      code('ERR_UNKNOWN_SIGNAL'),
    );
    expect(brood.killTree(new brood.ChildProcess())).toBe(0);
  });
});
