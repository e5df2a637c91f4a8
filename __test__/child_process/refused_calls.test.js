'use strict';
// Where a seccomp filter, as container runtimes have them, refuses what is newer than kill(2).

const { spawnSync } = require('node:child_process');
const path = require('node:path');
const { ROOT } = require('../helpers/run');

const BROOD = JSON.stringify(ROOT);
const REFUSING = path.resolve(__dirname, '../helpers/refusing.py');

// The same on every architecture.
const PIDFD_SEND_SIGNAL = 424;

function runRefused(errno, call, script) {
  const command = [REFUSING, String(errno), String(call), process.execPath, '-e', script];
  const { stdout, stderr } = spawnSync('python3', command, { encoding: 'utf8', timeout: 20000 });
  expect(stderr).toBe('');
  return stdout.trim().split('\n');
}

describe.each([
  ['EPERM', 1],
  ['ENOSYS', 38],
])('pidfd_send_signal refused with %s', (_, errno) => {
  const refused = (script) => runRefused(errno, PIDFD_SEND_SIGNAL, script);

  test('kill() and an AbortSignal end a child all the same', () => {
    const said = refused(`
      const cp = require(${BROOD});
      const child = cp.spawn('sleep', ['1000']);
      console.log(child.kill(0), child.kill());
      child.on('exit', (code, signal) => {
        console.log(code, signal, child.kill());
        const aborted = new AbortController();
        cp.spawn('sleep', ['1000'], { signal: aborted.signal })
          .on('error', (error) => console.log(error.code))
          .on('exit', (code, signal) => {
            console.log(code, signal);
            console.log(cp.diagnostics().fallbacks.join());
          });
        aborted.abort();
      });`);
    expect(said).toEqual([
      'true true',
      'null SIGTERM false',
      'ABORT_ERR',
      'null SIGTERM',
      'pidfd_send_signal',
    ]);
  });

  test('a timeout of spawnSync() ends its child', () => {
    const said = refused(`
      const { error, signal } = require(${BROOD}).spawnSync('sleep', ['1000'], { timeout: 100 });
      console.log(error.code, signal);`);
    expect(said).toEqual(['ETIMEDOUT SIGTERM']);
  });

  test('killTree() reaches the whole tree', () => {
    const said = refused(`
      const brood = require(${BROOD});
      const child = brood.spawn('sh', ['-c', 'sleep 1000 & sleep 1000 & echo; wait']);
      child.stdout.once('data', () => console.log(brood.killTree(child, 'SIGKILL')));
      child.on('close', (code, signal) => console.log(code, signal));`);
    expect(said).toEqual(['3', 'null SIGKILL']);
  });

  const asRoot = process.getuid() === 0 ? test : test.skip;

  asRoot('what the user may not signal is still refused', () => {
    const said = refused(`
      const child = require(${BROOD}).spawn('sleep', ['1']);
      process.setuid(65534);
      child.on('error', (error) => console.log(error.code));
      console.log(child.kill());`);
    expect(said.sort()).toEqual(['EPERM', 'false']);
  });
});
