'use strict';
// scripts/build.js must tell people what is missing, in a sentence and not in a stack.

const { mkdtempSync, rmSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const { ROOT, runNode } = require('./helpers/run');

const BUILD = path.join(ROOT, 'scripts', 'build.js');

test('without cargo the build says what to install', async () => {
  const empty = mkdtempSync(path.join(os.tmpdir(), 'brood-path-'));
  const { code, stderr } = await runNode([BUILD], { env: { PATH: empty } });
  rmSync(empty, { recursive: true });
  expect(code).toBe(1);
  expect(stderr).toMatch(/^brood is compiled on this machine and needs Rust [\d.]+ or newer/);
  expect(stderr.trim().split('\n')).toHaveLength(1);
});

test('on another platform the build says that it is not supported', async () => {
  const pretend = `Object.defineProperty(process, 'platform', { value: 'win32' });`;
  const { code, stderr } = await runNode(['-e', `${pretend} require(${JSON.stringify(BUILD)})`]);
  expect(code).toBe(1);
  expect(stderr.trim()).toBe('brood does not support win32 yet, only Linux: nothing was built.');
});
