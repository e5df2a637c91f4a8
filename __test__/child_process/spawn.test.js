'use strict';
// spawn(): what the child gets, what the parent sees, and in which order.

const { AsyncLocalStorage, createHook } = require('node:async_hooks');
const diagnostics = require('node:diagnostics_channel');
const EventEmitter = require('node:events');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { pathToFileURL } = require('node:url');
const { once } = EventEmitter;
const { expectNoLeaks } = require('../helpers/leaks');
const {
  brood,
  describeError,
  expectAlike,
  recordEvents,
  stock,
  textOf,
} = require('./side_by_side');

const NOWHERE = 'no-such-program-of-brood';
const node = (cp, code, options) => cp.spawn(process.execPath, ['-e', code], options);
const sh = (cp, code, options) => cp.spawn('/bin/sh', ['-c', code], options);
const closed = (child) => once(child, 'close');

async function said(child) {
  const text = textOf(child.stdout);
  await closed(child);
  return text;
}

describe('the life of a child', () => {
  test('spawn, exit and close come in this order with code and signal', () =>
    expectAlike((cp) => recordEvents(sh(cp, 'exit 3'))));

  test('a signal is reported by its name', async () => {
    const log = await expectAlike((cp) => recordEvents(sh(cp, 'kill -9 $$')));
    expect(log.at(-1)).toEqual(['close', null, 'SIGKILL']);
  });

  test('a signal without a name leaves exit code 0, as in Node', () =>
    expectAlike((cp) => recordEvents(sh(cp, 'kill -40 $$'))));

  test('close waits for a stream that a grandchild keeps open', () =>
    expectAlike(async (cp) => {
      const log = [];
      const child = sh(cp, 'cat <&3 & exit 5', { stdio: ['ignore', 'pipe', 'ignore', 'pipe'] });
      child.once('exit', () => {
        log.push(child._closesNeeded - child._closesGot > 0);
        child.stdio[3].end('later');
      });
      const text = textOf(child.stdout);
      await recordEvents(child, log);
      return [log, await text];
    }));

  test('output nobody reads is drained, so that close comes', () =>
    expectAlike((cp) => recordEvents(sh(cp, 'echo one; echo two >&2'))));

  test('a listener of exit can still begin to read', () =>
    expectAlike(async (cp) => {
      const child = sh(cp, 'echo text');
      let text;
      child.once('exit', () => (text = textOf(child.stdout)));
      await closed(child);
      return text;
    }));

  test('the handle is there until the exit and null afterwards', () =>
    expectAlike(async (cp) => {
      const child = sh(cp, 'exit 0');
      const { _handle: handle, pid } = child;
      const before = [typeof pid, handle.pid === pid, handle.hasRef()];
      let after;
      child.once('exit', () => (after = [child._handle, child.exitCode, child.signalCode]));
      await closed(child);
      return [before, after, child.kill(), child.killed, child.spawnfile, child.spawnargs];
    }));

  test('own properties are those of Node, in its order', async () => {
    const names = await expectAlike(async (cp) => {
      const fresh = Object.keys(new cp.ChildProcess());
      const child = sh(cp, 'exit 0');
      const spawned = Object.keys(child);
      await closed(child);
      return [fresh, spawned];
    });
    expect(names[0]).toContain('_handle');
  });

  test('resourceUsage has the fields of process.resourceUsage() after the exit', async () => {
    const child = node(brood, 'for (let i = 0; i < 1e7; i++);');
    expect(child.resourceUsage).toBeUndefined();
    await closed(child);
    expect(Object.keys(child.resourceUsage)).toEqual(Object.keys(process.resourceUsage()));
    expect(child.resourceUsage.userCPUTime).toBeGreaterThan(0);
    expect(child.resourceUsage.maxRSS).toBeGreaterThan(1000);
  });

  test('events and streams run in the async context of the spawn', async () => {
    const storage = new AsyncLocalStorage();
    const seen = [];
    await storage.run('context', async () => {
      const child = sh(brood, 'echo text');
      const note = (name) => () => seen.push([name, storage.getStore()]);
      for (const name of ['spawn', 'exit', 'close']) child.on(name, note(name));
      child.stdout.on('data', note('data')).on('end', note('end'));
      await closed(child);
    });
    expect(seen.map(([name]) => name).sort()).toEqual(['close', 'data', 'end', 'exit', 'spawn']);
    expect(new Set(seen.map(([, store]) => store))).toEqual(new Set(['context']));
  });

  test('a hook that spawns in the middle of a spawn takes none of its pipes', () =>
    expectNoLeaks(async () => {
      let inner;
      const hook = createHook({
        init(id, type) {
          if (type !== 'PROCESSWRAP' || inner !== undefined) return;
          inner = null;
          inner = sh(brood, 'echo inner');
        },
      }).enable();
      const outer = sh(brood, 'echo outer');
      hook.disable();
      expect(await Promise.all([said(outer), said(inner)])).toEqual(['outer\n', 'inner\n']);
    }));

  test.each([
    ['standard output', 'echo a; echo b >&2', 0],
    ['standard output, in a parent that is busy meanwhile', 'echo a; echo b >&2', 100],
    ['the failure to write, in a parent that is busy meanwhile', 'head -c 1', 100],
  ])("'exit' comes after %s", (_, command, busy) =>
    expectAlike(async (cp) => {
      const child = sh(cp, command);
      const log = [];
      child.stdin.on('error', ({ code }) => log.push(code));
      child.stdin.write(Buffer.alloc(3e6));
      child.stdout.on('data', () => log.push('data'));
      child.stderr.on('data', () => log.push('data'));
      child.on('exit', () => log.push('exit'));
      const end = Date.now() + busy;
      while (Date.now() < end);
      await closed(child);
      return [log.slice(0, -1).sort(), log.at(-1)];
    }),
  );

  test('an unreferenced child does not keep the process alive', async () => {
    const code = `
      const { spawn } = require(${JSON.stringify(path.resolve(__dirname, '../..'))});
      const child = spawn('sleep', ['60'], { stdio: 'ignore', detached: true });
      child.unref();
      console.log(child.pid, child._handle.hasRef());
    `;
    const parent = node(stock, code);
    const [pid, hasRef] = (await said(parent)).trim().split(' ');
    expect(hasRef).toBe('false');
    process.kill(Number(pid), 'SIGKILL');
  });
});

describe('a program that cannot be run', () => {
  test('gives an error event, live streams and then close', () =>
    expectAlike(async (cp) => {
      const log = [];
      const child = cp.spawn(NOWHERE, ['a', 'b']);
      const events = recordEvents(child, log);
      log.push([child.pid, child.stdio.length, child.stdout.readable, child.stdin.writable]);
      for (const name of ['end', 'error']) child.stdout.on(name, () => log.push(`stdout ${name}`));
      child.stdin.on('error', (error) => log.push(describeError(error)));
      child.stdin.write('text', (error) => log.push(['written', error?.code]));
      return events;
    }));

  test('is no reason to throw when it may not be executed', () =>
    expectAlike((cp) => recordEvents(cp.spawn('/etc/passwd'))));

  test('gives the same event when the directory is missing', () =>
    expectAlike((cp) => recordEvents(sh(cp, 'exit 0', { cwd: '/no/such/directory' }))));

  test('can be killed without effect', async () => {
    const child = brood.spawn(NOWHERE);
    expect(child.kill()).toBe(false);
    expect(child.killed).toBe(false);
    await once(child, 'error');
  });

  test('throws at once, with nothing left open, when its arguments are too long', async () => {
    const attempt = (cp) => {
      try {
        return cp.spawn('true', ['x'.repeat(3e6)]);
      } catch (error) {
        return describeError(error);
      }
    };
    await expectNoLeaks(() => attempt(brood));
    await expectAlike(attempt);
  });

  test('says so once with a channel too', () =>
    expectAlike((cp) => recordEvents(cp.spawn(NOWHERE, { stdio: ['ipc', 'pipe'] }))));
});

describe('kill', () => {
  test('takes names in any case and numbers', () =>
    expectAlike(async (cp) => {
      const results = [];
      for (const signal of [undefined, 'SIGKILL', 'sigint', os.constants.signals.SIGHUP]) {
        const child = cp.spawn('sleep', ['60']);
        results.push(child.kill(signal), child.killed, ...(await closed(child)));
      }
      return results;
    }));

  test('0 asks only whether the child is there', async () => {
    const child = brood.spawn('sleep', ['60']);
    expect([child.kill(0), child.killed]).toEqual([true, true]);
    child.kill('SIGKILL');
    await closed(child);
    expect(child.kill(0)).toBe(false);
  });

  test('happens at the end of a using declaration', async () => {
    const [dispose] = Object.getOwnPropertySymbols(stock.ChildProcess.prototype);
    const child = brood.spawn('sleep', ['60']);
    child[dispose]();
    expect(await closed(child)).toEqual([null, 'SIGTERM']);
  });

  test('comes after options.timeout, whatever timers the program has for itself', () =>
    expectAlike((cp) => {
      jest.useFakeTimers({ doNotFake: ['nextTick', 'queueMicrotask', 'setImmediate'] });
      try {
        return recordEvents(cp.spawn('sleep', ['60'], { timeout: 50 }));
      } finally {
        jest.useRealTimers();
      }
    }));

  test('comes after options.timeout, with options.killSignal', () =>
    expectAlike((cp) =>
      recordEvents(cp.spawn('sleep', ['60'], { timeout: 50, killSignal: 'SIGINT' })),
    ));

  test('comes when options.signal aborts, before or after the start', () =>
    expectAlike(async (cp) => {
      const early = cp.spawn('sleep', ['60'], { signal: AbortSignal.abort('why') });
      const controller = new AbortController();
      const late = cp.spawn('sleep', ['60'], { signal: controller.signal, killSignal: 'SIGKILL' });
      const logs = [recordEvents(early), recordEvents(late)];
      late.once('spawn', () => controller.abort(new Error('stop')));
      return (await Promise.all(logs)).map((log) =>
        log.map((event) => event.map((value) => value?.code ?? value)),
      );
    }));

  test('an abort after the exit does nothing', () =>
    expectAlike(async (cp) => {
      const controller = new AbortController();
      const child = sh(cp, 'exit 0', { signal: controller.signal });
      const log = recordEvents(child);
      child.on('exit', () => controller.abort());
      return log;
    }));
});

describe('what the child gets', () => {
  test('argv0 instead of its name', async () => {
    const child = brood.spawn('/bin/sh', ['-c', 'echo $0; tr "\\0" " " </proc/$$/cmdline'], {
      argv0: 'other',
    });
    expect(await said(child)).toMatch(/^other\nother -c/);
  });

  test('arguments that are no strings, converted as Node does', () =>
    expectAlike((cp) =>
      said(
        cp.spawn('printf', [
          '%s|',
          1,
          null,
          undefined,
          true,
          {},
          [1, 2],
          { toString: () => 'a\0b' },
        ]),
      ),
    ));

  test('an empty argument and text beyond ASCII', () =>
    expectAlike((cp) => said(cp.spawn('printf', ['%s|', '', 'žluťoučký 🐎', '\ud800']))));

  test('a working directory, as path or as file: URL', () =>
    expectAlike(async (cp) => {
      const here = fs.realpathSync(os.tmpdir());
      return [
        await said(cp.spawn('pwd', { cwd: here })),
        await said(cp.spawn('pwd', { cwd: pathToFileURL(here) })),
      ];
    }));

  test('a shell, the default one or another', () =>
    expectAlike(async (cp) => [
      await said(cp.spawn('echo $0 "$((1 + 2))"', { shell: true })),
      await said(cp.spawn('echo $0', { shell: '/bin/bash' })),
    ]));

  test('a session of its own when detached', async () => {
    const child = brood.spawn('cat', ['/proc/self/stat'], { detached: true });
    const [, , , , pgrp, session] = (await said(child)).split(' ');
    expect([Number(pgrp), Number(session)]).toEqual([child.pid, child.pid]);
  });

  const asRoot = process.getuid() === 0 ? test : test.skip;
  asRoot('another user and group', async () => {
    const child = brood.spawn('sh', ['-c', 'id -u; id -g'], { uid: 65534, gid: 65533 });
    expect(await said(child)).toBe('65534\n65533\n');
  });

  test('only the descriptors it was given', async () => {
    const held = fs.openSync('/dev/null', 'r');
    const child = brood.spawn('ls', ['/proc/self/fd'], {
      stdio: ['ignore', 'pipe', 'ignore', 'pipe'],
    });
    // 4 is the directory that ls itself reads.
    expect((await said(child)).trim().split('\n')).toEqual(['0', '1', '2', '3', '4']);
    fs.closeSync(held);
  });
});

describe('the environment', () => {
  const env = (cp, options) =>
    said(cp.spawn('env', options)).then((text) => text.split('\n').sort());

  test('is that of this process, also after changes', async () => {
    process.env.BROOD_TEST_LATE = 'late';
    expect(await env(brood)).toContain('BROOD_TEST_LATE=late');
    delete process.env.BROOD_TEST_LATE;
    expect(await env(brood)).toEqual(await env(stock));
  });

  test('is what is given, inherited properties included, undefined ones left out', async () => {
    const given = Object.assign(Object.create({ INHERITED: 'yes' }), {
      A: 1,
      B: undefined,
      C: null,
    });
    const lines = await expectAlike((cp) => env(cp, { env: given }));
    expect(lines).toEqual(['', 'A=1', 'C=null', 'INHERITED=yes']);
  });

  test('can be empty', () => expectAlike((cp) => env(cp, { env: {} })));

  test('decides where the program is looked for', () =>
    expectAlike((cp) => recordEvents(cp.spawn('true', { env: { PATH: '/no/such/directory' } }))));

  test('has NODE_V8_COVERAGE whatever is given, unless given otherwise', async () => {
    process.env.NODE_V8_COVERAGE = '/tmp/coverage';
    try {
      const coverage = 'NODE_V8_COVERAGE=/tmp/coverage';
      expect(await env(brood, { env: { A: '1' } })).toEqual(['', 'A=1', coverage]);
      expect(await env(brood, { env: { NODE_V8_COVERAGE: undefined } })).toEqual(['']);
      const given = { NODE_V8_COVERAGE: 'mine' };
      expect(await env(brood, { env: given })).toEqual(['', 'NODE_V8_COVERAGE=mine']);
    } finally {
      delete process.env.NODE_V8_COVERAGE;
    }
  });

  test('is not written to', async () => {
    const given = Object.freeze({ A: '1' });
    await said(brood.spawn('env', { env: given, stdio: ['pipe', 'pipe', 'pipe'] }));
    expect(given).toEqual({ A: '1' });
  });

  // jest puts an object of its own in the place of process.env; outside it is taken over unread.
  const outside = (code, ...flags) => {
    const brooding = `const brood = require(${JSON.stringify(path.resolve(__dirname, '../..'))});`;
    const env = `const env = () => brood.execFileSync('env').toString();`;
    return said(stock.spawn(process.execPath, [...flags, '-e', `${brooding}${env}${code}`]));
  };

  test('outside jest too is that of the process, with every change', async () => {
    const text = await outside(`
      process.env.LATER = 'x';
      console.log(/^LATER=x$/m.test(env()));
      delete process.env.LATER;
      console.log(/LATER/.test(env()));
      process.env = { ONLY: '1', PATH: process.env.PATH };
      console.log(/^ONLY=1\\n/.test(env()), /HOME/.test(env()));
      Object.prototype.POLLUTED = 'yes';
      console.log(/^POLLUTED=yes$/m.test(env()));
    `);
    expect(text).toBe('true\nfalse\ntrue false\ntrue\n');
  });

  test("in a worker thread is the thread's own", async () => {
    const text = await outside(`
      const { Worker, isMainThread } = require('node:worker_threads');
      const code = 'process.env.OF_THREAD = 1;' +
        'console.log(/^OF_THREAD=1$/m.test(require(' + ${JSON.stringify(JSON.stringify(path.resolve(__dirname, '../..')))} +
        ').execFileSync("env").toString()))';
      new Worker(code, { eval: true }).on('exit', () => console.log(/OF_THREAD/.test(env())));
    `);
    expect(text).toBe('true\nfalse\n');
  });
});

describe('stdio', () => {
  test('pipes are net.Sockets, stdin for writing and the others for reading', () =>
    expectAlike(async (cp) => {
      const child = cp.spawn('cat', { stdio: ['pipe', 'pipe', 'overlapped', 'pipe', 'ignore'] });
      const shapes = child.stdio.map(
        (stream) =>
          stream && [
            stream instanceof net.Socket,
            stream.readable,
            stream.writable,
            stream.allowHalfOpen,
          ],
      );
      child.stdin.end('to cat and back');
      return [
        shapes,
        await said(child),
        child.stdio[0] === child.stdin,
        child.stdio[2] === child.stderr,
      ];
    }));

  test('extra pipes work both ways', () =>
    expectAlike(async (cp) => {
      const child = sh(cp, 'read line <&3; echo "got $line" >&3', {
        stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
      });
      child.stdio[3].write('hello\n');
      const text = textOf(child.stdio[3]);
      await closed(child);
      return text;
    }));

  test('takes descriptors, streams and what has a native handle', () =>
    expectAlike(async (cp) => {
      const file = path.join(os.tmpdir(), `brood-stdio-${process.pid}`);
      const fd = fs.openSync(file, 'w+');
      const stream = fs.createWriteStream(file, { flags: 'a' });
      await once(stream, 'open');
      await closed(sh(cp, 'echo descriptor', { stdio: ['ignore', fd, fd] }));
      await closed(sh(cp, 'echo stream', { stdio: ['ignore', stream, 'ignore'] }));
      stream.destroy();
      const server = net.createServer((socket) => {
        const child = sh(cp, 'echo socket', { stdio: ['ignore', socket, 'ignore'] });
        child.on('exit', () => socket.destroy());
      });
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      const text = await textOf(net.connect(server.address().port, '127.0.0.1'));
      server.close();
      fs.closeSync(fd);
      const written = fs.readFileSync(file, 'utf8');
      fs.unlinkSync(file);
      return [written, text];
    }));

  test('takes the stream of another child, which the parent then leaves alone', () =>
    expectAlike(async (cp) => {
      const source = sh(cp, 'echo from the first');
      const sink = cp.spawn('cat', { stdio: [source.stdout, 'pipe', 'inherit'] });
      const text = textOf(sink.stdout);
      await closed(sink);
      source.stdout.destroy();
      return text;
    }));

  test('holes and missing entries are pipes up to 2 and ignored from 3 on', () =>
    expectAlike(async (cp) => {
      const child = sh(cp, 'exit 0', { stdio: [null, undefined, 'pipe', null, undefined] });
      await closed(child);
      return child.stdio.map((stream) => stream !== null);
    }));

  test('a descriptor that is not open is an error thrown at once', () =>
    expectAlike((cp) => {
      try {
        cp.spawn('true', { stdio: ['ignore', 12345, 'ignore'] });
        return 'spawned';
      } catch (error) {
        return describeError(error);
      }
    }));

  test("the caller's options are not written to", async () => {
    const options = Object.freeze({ stdio: Object.freeze(['ignore', 'pipe']) });
    expect(await said(brood.spawn('echo', ['x'], options))).toBe('x\n');
  });

  test("options of Object.prototype are not taken for the caller's", async () => {
    Object.prototype.shell = true;
    Object.prototype.cwd = '/no/such/directory';
    try {
      expect(await said(brood.spawn('echo', ['$HOME'], {}))).toBe('$HOME\n');
    } finally {
      delete Object.prototype.shell;
      delete Object.prototype.cwd;
    }
  });
});

describe('ChildProcess', () => {
  test('is one class with that of Node for instanceof, both ways', async () => {
    const ours = sh(brood, 'exit 0');
    const theirs = sh(stock, 'exit 0');
    for (const child of [ours, theirs]) {
      expect(child instanceof brood.ChildProcess).toBe(true);
      expect(child instanceof stock.ChildProcess).toBe(true);
      expect(child instanceof EventEmitter).toBe(true);
    }
    expect(new EventEmitter() instanceof brood.ChildProcess).toBe(false);
    await Promise.all([closed(ours), closed(theirs)]);
  });

  test('can be derived from', async () => {
    class Job extends brood.ChildProcess {}
    const job = new Job();
    job.spawn({ file: '/bin/sh', args: ['sh', '-c', 'exit 4'] });
    expect(job instanceof Job).toBe(true);
    expect(new brood.ChildProcess() instanceof Job).toBe(false);
    expect(await closed(job)).toEqual([4, null]);
  });

  test("spawns by itself from what Node's takes, and inherits the environment", () =>
    expectAlike(async (cp) => {
      const run = async (options) => {
        const child = new cp.ChildProcess();
        const result = child.spawn({ file: '/bin/sh', ...options });
        return [result, await said(child), child.spawnfile, child.spawnargs];
      };
      return [
        await run({ args: ['sh', '-c', 'echo $HOME'] }),
        await run({ args: ['sh', '-c', 'env'], envPairs: ['A=1', 'B=2\0C=3'] }),
        await run({ args: ['sh', '-c', 'pwd; echo $0'], cwd: '/' }),
      ];
    }));

  test("answers ENOENT and reports it, as Node's does", () =>
    expectAlike(async (cp) => {
      const child = new cp.ChildProcess();
      const events = recordEvents(child);
      return [child.spawn({ file: NOWHERE, args: [NOWHERE, 'x'], stdio: 'ignore' }), await events];
    }));

  test('is published to the channel child_process when it is made', () =>
    expectAlike(async (cp) => {
      const seen = [];
      const note = (message) => seen.push([Object.keys(message), message.process.spawnfile]);
      diagnostics.subscribe('child_process', note);
      const child = sh(cp, 'exit 0');
      diagnostics.unsubscribe('child_process', note);
      await closed(child);
      return seen;
    }));

  test('is traced from start to end or error', async () => {
    const seen = [];
    const subscribers = {};
    for (const name of ['start', 'end', 'error', 'asyncStart', 'asyncEnd']) {
      subscribers[name] = (message) => seen.push([name, message]);
    }
    const channel = diagnostics.tracingChannel('child_process.spawn');
    channel.subscribe(subscribers);
    const good = sh(brood, 'exit 0');
    const bad = brood.spawn(NOWHERE);
    channel.unsubscribe(subscribers);
    await Promise.all([closed(good), once(bad, 'error')]);
    expect(seen.map(([name]) => name)).toEqual(['start', 'end', 'start', 'error']);
    expect(seen[0][1].process).toBe(good);
    expect(seen[0][1].options.file).toBe('/bin/sh');
    expect(seen[0][1].options.envPairs).toContain(`PATH=${process.env.PATH}`);
    expect(seen[3][1].error.code).toBe('ENOENT');
  });

  test('a replaced prototype.spawn sees the whole environment', async () => {
    const original = brood.ChildProcess.prototype.spawn;
    let pairs;
    brood.ChildProcess.prototype.spawn = function (options) {
      pairs = options.envPairs;
      return original.call(this, options);
    };
    try {
      await closed(sh(brood, 'exit 0'));
    } finally {
      brood.ChildProcess.prototype.spawn = original;
    }
    expect(pairs).toContain(`PATH=${process.env.PATH}`);
  });
});

test.each([['/bin/sleep'], [NOWHERE]])(
  'a stream of %s that cannot be made is thrown, and nothing is left of the start',
  (file) =>
    expectNoLeaks(async () => {
      const { Socket } = net;
      const made = [];
      net.Socket = function (options) {
        if (made.length === 2) throw new Error('no third');
        made.push(new Socket(options));
        return made.at(-1);
      };
      const child = new brood.ChildProcess();
      const events = [];
      for (const name of ['spawn', 'exit', 'error', 'close']) {
        child.on(name, () => events.push(name));
      }
      const stdio = ['pipe', 'pipe', 'pipe', 'pipe', 'ipc'];
      try {
        expect(() => child.spawn({ file, args: [file, '1000'], stdio })).toThrow('no third');
      } finally {
        net.Socket = Socket;
      }
      expect([child.pid, child.kill()]).toEqual([undefined, false]);
      await Promise.all(made.map((socket) => socket.closed || once(socket, 'close')));
      expect(events).toEqual([]);
    }),
);

test('a hundred children leave no descriptor and no process behind', () =>
  expectNoLeaks(async () => {
    const children = Array.from({ length: 100 }, (_, i) => sh(brood, `echo ${i}; exit ${i % 7}`));
    const ends = await Promise.all(children.map(closed));
    expect(ends.map(([code]) => code)).toEqual(children.map((_, i) => i % 7));
  }));
