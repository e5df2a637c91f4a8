'use strict';
// What other addons of the same process do: turns of the event loop in the middle of others, and
// copies of the process.

const { execFileSync } = require('node:child_process');
const { mkdtempSync, rmSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const { ROOT, fixture, runNode } = require('./helpers/run');

const REGISTER = path.join(ROOT, 'register.js');

let folder;
let addon;

beforeAll(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'brood-addon-'));
  addon = path.join(folder, 'nested.node');
  execFileSync('cc', ['-shared', '-fPIC', '-o', addon, fixture('nested.c')]);
});

afterAll(() => rmSync(folder, { recursive: true }));

/** Runs `script`, in which `nested` is the addon and `start(code, serialization)` forks. */
async function run(script, childHas) {
  const prelude = `
    const cp = require('node:child_process');
    const nested = require(${JSON.stringify(addon)});
    const execArgv = ${JSON.stringify(childHas === 'brood' ? ['-r', REGISTER] : [])};
    const start = (code, serialization) =>
      cp.fork('-e', [code], { execPath: process.execPath, execArgv, serialization });
  `;
  const env = { NODE_OPTIONS: '' };
  const { code, stdout, stderr } = await runNode(['-r', REGISTER, '-e', prelude + script], { env });
  expect(stderr).toBe('');
  expect(code).toBe(0);
  return stdout;
}

describe.each(['stock', 'brood'])('to a child of %s', (childHas) => {
  test.each(['json', 'advanced'])(
    'an answer that a %s listener awaits in a turn of its own arrives, and all else, too',
    async (serialization) => {
      const child = `
        process.send('go');
        process.send('more');
        process.on('message', () => {
          process.send('answer');
          setImmediate(() => process.send('end', () => process.disconnect()));
        });`;
      const stdout = await run(
        `
        const got = [];
        const child = start(${JSON.stringify(child)}, '${serialization}');
        // A turn waits for something to happen.
        const ticking = setInterval(() => {}, 10);
        child.on('message', (message) => {
          got.push(message);
          if (message !== 'go') return;
          child.send('ask');
          while (!got.includes('answer')) {
            process._tickCallback();
            nested.runTurn();
          }
          console.log('nested turns are over');
        });
        child.on('disconnect', () => clearInterval(ticking));
        child.on('close', () => console.log(got.join(' ')));`,
        childHas,
      );
      expect(stdout).toBe('nested turns are over\ngo more answer end\n');
    },
  );

  test('a copy of the process that exits does not send what the process will', async () => {
    const child = `
      process.on('message', (message) => process.send(message));
      process.send('ready');`;
    const stdout = await run(
      `
      const got = [];
      const child = start(${JSON.stringify(child)});
      child.on('message', (message) => {
        got.push(message);
        if (message === 'd') return child.disconnect();
        if (message !== 'ready') return;
        for (const letter of ['a', 'b', 'c']) child.send(letter);
        nested.forkAndExit();
        child.send('d');
      });
      child.on('close', () => console.log(got.join(' ')));`,
      childHas,
    );
    expect(stdout).toBe('ready a b c d\n');
  });
});

test('what has come together with a message is there for the turns that its listener makes', async () => {
  const child = `
    process.once('message', () => {
      // By turns as JSON and serialized, in one batch.
      process.send('first');
      for (const message of [{ is: 'plain' }, new Map([['is', 'map']]), { is: 'last' }]) {
        process.send(message);
      }
      process.disconnect();
    });
    process.send('ready');`;
  const stdout = await run(
    `
    const got = [];
    const child = start(${JSON.stringify(child)}, 'advanced');
    const ticking = setInterval(() => {}, 10);
    child.on('message', (message) => {
      if (message === 'ready') return child.send('go');
      const name = typeof message === 'string' ? message : message.is ?? message.get('is');
      got.push(name);
      while (name === 'plain' && !got.includes('disconnect')) {
        process._tickCallback();
        nested.runTurn();
      }
    });
    child.on('disconnect', () => {
      got.push('disconnect');
      clearInterval(ticking);
    });
    child.on('close', () => console.log(got.join(' ')));`,
    'brood',
  );
  expect(stdout).toBe('first plain map last disconnect\n');
});

test('what is thrown while another error is being reported is reported once, and so is that', async () => {
  const stdout = await run(`
    const throwing = (name) =>
      cp.spawn('true', { stdio: 'ignore' }).on('exit', () => { throw name; });
    let isOver = false;
    process.on('uncaughtException', (name) => {
      console.log('got', name);
      if (name === 'inner') isOver = true;
      if (name !== 'outer') return;
      throwing('inner');
      while (!isOver) nested.runTurn();
    });
    throwing('outer');`);
  expect(stdout).toBe('got outer\ngot inner\n');
});
