'use strict';
// What a listener throws that the addon has called: an uncaught exception like any other, while the
// listener's async context is still there.

const path = require('node:path');
const { ROOT, fixture, runNode } = require('./helpers/run');

const REGISTER = path.join(ROOT, 'register.js');

/**
 * Runs `node ...args` with and without brood. What both exit with, and those of the lines they print
 * that match, must be the same; resolves to it.
 */
async function expectLikeStock(args, lines = /^/) {
  const [stock, ours] = await Promise.all([runNode(args), runNode(['-r', REGISTER, ...args])]);
  const said = ({ code, stdout }) => [code, stdout.split('\n').filter((line) => lines.test(line))];
  expect(said(ours)).toEqual(said(stock));
  return ours;
}

test.each(['exit', 'connection'])('a listener of %s throws in its async context', async (event) => {
  const { code, stdout } = await expectLikeStock([fixture('throws-in-listener.js'), event]);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toEqual(['on purpose', 'entered', true, 'after', 'tick']);
});

test('a listener that throws fails the test of node:test which it belongs to', async () => {
  const script = `
    const { spawn } = require('node:child_process');
    const { test } = require('node:test');
    for (const name of ['first', 'second']) {
      test(name, (context, done) => {
        spawn('true').on('exit', () => { throw new Error('of ' + name); });
      });
    }
  `;
  const args = ['--test-reporter=tap', '-e', script];
  const { code, stdout } = await expectLikeStock(args, /^(?:not )?ok|failureType|error: /);
  expect(code).toBe(1);
  expect(stdout).toContain("error: 'of second'");
});

test('everything that is thrown is reported once, also by a tick after a listener', async () => {
  const script = `
    process.on('uncaughtException', (error) => console.log('got', error));
    const thrown = [undefined, 'tick', null];
    (function next() {
      if (thrown.length === 0) return;
      require('node:child_process').spawn('true', { stdio: 'ignore' }).on('exit', () => {
        const value = thrown.shift();
        next();
        if (value === 'tick') process.nextTick(() => { throw value; });
        else throw value;
      });
    })();
  `;
  const { stdout } = await expectLikeStock(['-e', script]);
  expect(stdout).toBe('got undefined\ngot tick\ngot null\n');
});
