'use strict';
// The names brood exports, by require and by import.

const path = require('node:path');
const { pathToFileURL } = require('node:url');
const { runNode } = require('../helpers/run');
const { brood, expectAlike, stock } = require('./side_by_side');

const ROOT = path.resolve(__dirname, '../..');

test('every name of node:child_process is there, in its order and with its arity', () =>
  expectAlike((cp) => Object.keys(stock).map((name) => [name, cp[name].name, cp[name].length])));

test('what brood adds comes on top', () => {
  const added = Object.keys(brood).filter((name) => !Object.hasOwn(stock, name));
  expect(added).toEqual([
    'killTree',
    'cluster',
    'diagnostics',
    'sharedBuffer',
    'releaseBuffer',
    'adoptChannel',
  ]);
});

test('the methods of ChildProcess are those of Node', () =>
  expectAlike((cp) => {
    const { prototype } = cp.ChildProcess;
    return Reflect.ownKeys(prototype).map((key) => {
      const { enumerable, writable, configurable } = Object.getOwnPropertyDescriptor(
        prototype,
        key,
      );
      return [key, enumerable, writable, configurable];
    });
  }));

test('cluster is loaded only when it is asked for', async () => {
  const code = `
    const brood = require(${JSON.stringify(ROOT)});
    const before = process.moduleLoadList.includes('NativeModule cluster');
    console.log(before, typeof brood.cluster.fork, brood.cluster === brood.cluster);`;
  const { stdout } = await runNode(['-e', code]);
  expect(stdout).toBe('false function true\n');
});

test('the first call works although no descriptor is left, and fails as Node does', async () => {
  const code = (name) => `
    const fs = require('node:fs');
    const cp = require(${JSON.stringify(name)});
    const held = [];
    try { for (;;) held.push(fs.openSync('/dev/null')); } catch {}
    const child = cp.spawn('true');
    child.on('error', (error) => {
      held.forEach((fd) => fs.closeSync(fd));
      console.log(error.code, error.message, child.stdio);
      cp.spawn('true').on('exit', (code) => console.log(code));
    });`;
  const limited = (name) =>
    brood.execFileSync('/bin/sh', [
      '-c',
      'ulimit -n 100; exec "$0" -e "$1"',
      process.execPath,
      code(name),
    ]);
  expect(String(limited(ROOT))).toBe(String(limited('node:child_process')));
});

test('import has every name and the whole as default', async () => {
  const url = JSON.stringify(pathToFileURL(path.join(ROOT, 'index.mjs')));
  const code = `
    import brood, * as names from ${url};
    import { createRequire } from 'node:module';
    const required = createRequire(${url})('./index.js');
    console.log(brood === required, Object.keys(required).every((name) => names[name] === required[name]));`;
  const { stdout } = await runNode(['--input-type=module', '-e', code]);
  expect(stdout).toBe('true true\n');
});
