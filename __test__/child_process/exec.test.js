'use strict';
// exec() and execFile(): one callback with everything the child said.

const { promisify } = require('node:util');
const { brood, describeError, expectAlike } = require('./side_by_side');

const NOWHERE = 'no-such-program-of-brood';

/** Resolves to what the callback of cp[name](...args) got. */
const result = (cp, name, ...args) =>
  new Promise((resolve) => {
    cp[name](...args, (error, ...output) => resolve([describeError(error), ...output]));
  });

test.each([
  ['the output of a command', 'exec', 'echo out; echo err >&2', {}],
  ['the output of a program', 'execFile', 'echo', ['a', 'b'], {}],
  ['output as bytes', 'exec', 'echo out', { encoding: 'buffer' }],
  ['output as bytes for an unknown encoding', 'exec', 'echo out', { encoding: 'klingon' }],
  ['output in another encoding', 'exec', 'echo out', { encoding: 'base64' }],
  ['no output at all', 'exec', 'exit 0', { encoding: null }],
  ['a failure', 'exec', 'echo some; echo why >&2; exit 3', {}],
  ['a failure of a program with arguments', 'execFile', 'sh', ['-c', 'exit 1', 'x'], {}],
  ['an end by signal', 'exec', 'kill -9 $$', {}],
  ['a missing program', 'execFile', NOWHERE, ['a'], {}],
  ['a missing shell', 'exec', 'echo', { shell: NOWHERE }],
  ['a missing directory', 'exec', 'pwd', { cwd: '/no/such/directory' }],
  ['a timeout', 'exec', 'exec sleep 60', { timeout: 50 }],
  ['a timeout with a signal', 'execFile', 'sleep', ['60'], { timeout: 50, killSignal: 'SIGKILL' }],
  ['an environment', 'exec', 'echo $A', { env: { A: 'given' } }],
  ['a shell', 'execFile', 'echo $0', { shell: '/bin/bash' }],
  ['output up to the limit', 'exec', 'printf 12345', { maxBuffer: 5 }],
  ['output beyond the limit', 'exec', 'printf 123456', { maxBuffer: 5 }],
  ['errors beyond the limit', 'exec', 'printf 123456 >&2', { maxBuffer: 5 }],
  ['bytes beyond the limit', 'exec', 'printf 123456', { maxBuffer: 5, encoding: 'buffer' }],
  ['characters of several bytes at the limit', 'exec', 'printf äöü', { maxBuffer: 4 }],
  ['nothing allowed', 'exec', 'echo x', { maxBuffer: 0 }],
  ['null allowed', 'exec', 'echo x', { maxBuffer: null }],
  ['more than the default limit', 'exec', 'head -c 1500000 /dev/zero', {}],
  ['any amount', 'exec', 'head -c 1500000 /dev/zero | tr "\\0" x', { maxBuffer: Infinity }],
  ['undefined for no limit', 'exec', 'head -c 1500000 /dev/zero', { maxBuffer: undefined }],
])('the callback gets what it gets from Node: %s', (title, ...call) =>
  expectAlike((cp) => result(cp, ...call)),
);

test('options, arguments and callback may be left out', () =>
  expectAlike(async (cp) => [
    await result(cp, 'exec', 'echo x'),
    await result(cp, 'execFile', 'true'),
    await result(cp, 'execFile', 'pwd', { cwd: '/' }),
    await result(cp, 'execFile', 'echo', ['x']),
    await result(cp, 'execFile', 'echo', ['x'], null),
    await result(cp, 'execFile', 'echo', null, {}),
  ]));

test('the child is returned and its streams take an encoding of their own', () =>
  expectAlike(
    (cp) =>
      new Promise((resolve) => {
        const child = cp.exec('printf abc', { encoding: null }, (error, stdout) =>
          resolve([typeof child.pid, stdout]),
        );
        child.stdout.setEncoding('hex');
      }),
  ));

test('an abort ends the child and is reported with its reason', () =>
  expectAlike((cp) => {
    const controller = new AbortController();
    const outcome = result(cp, 'exec', 'exec sleep 60', { signal: controller.signal });
    controller.abort('enough');
    return outcome;
  }));

describe('promisify', () => {
  test('resolves to both outputs and has the child', () =>
    expectAlike(async (cp) => {
      const promise = promisify(cp.exec)('echo out; echo err >&2');
      return [typeof promise.child.pid, await promise];
    }));

  test('rejects with the error, which carries the outputs', () =>
    expectAlike((cp) =>
      promisify(cp.execFile)('sh', ['-c', 'echo out; exit 2']).catch((error) =>
        describeError(error),
      ),
    ));

  test('throws bad arguments at once', () =>
    expectAlike((cp) => {
      try {
        return promisify(cp.execFile)('echo', ['x'], { signal: {} });
      } catch (error) {
        return describeError(error);
      }
    }));

  test('is named after the function', () => {
    expect(promisify(brood.exec).name).toBe('exec');
    expect(promisify(brood.execFile).name).toBe('execFile');
  });
});

test('exec goes through execFile of the module, where it can be watched', () => {
  const calls = [];
  const { execFile } = brood;
  brood.execFile = (...args) => calls.push(args);
  try {
    brood.exec('echo x', { cwd: '/' });
  } finally {
    brood.execFile = execFile;
  }
  expect(calls).toEqual([['echo x', { cwd: '/', shell: true }, undefined]]);
});
