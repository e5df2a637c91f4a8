'use strict';
// releaseBuffer(): memory of large buffers that is given back before V8 collects it.

const fs = require('node:fs');
const { setImmediate: turn } = require('node:timers/promises');
const { releaseBuffer, sharedBuffer } = require('../..');
const { ask, end, upgraded } = require('../helpers/conversation');

const SIZE = 8 << 20;
const BYTES_PER_KB = 1024;

function mappedBytes() {
  const [, kb] = /^VmSize:\s+(\d+)/m.exec(fs.readFileSync('/proc/self/status', 'utf8'));
  return kb * BYTES_PER_KB;
}

function sealedFiles() {
  const maps = fs.readFileSync('/proc/self/maps', 'utf8');
  return maps.split('\n').filter((line) => line.includes('/memfd:brood ')).length;
}

test('the memory of a message that is released serves the next ones', async () => {
  const child = await upgraded();
  const payload = Buffer.alloc(SIZE, 1);
  for (let n = 0; n < 3; n++) releaseBuffer(await ask(child, payload));
  const before = mappedBytes();
  for (let n = 0; n < 40; n++) {
    const got = await ask(child, payload);
    expect(got.equals(payload)).toBe(true);
    expect(releaseBuffer(got)).toBe(true);
  }
  expect(mappedBytes() - before).toBeLessThan(4 * SIZE);
  await end(child);
});

test('all that lies in the same memory is empty afterwards, and it can be released once', async () => {
  const child = await upgraded();
  const got = await ask(child, new Float64Array(SIZE / 8).fill(0.5));
  const bytes = Buffer.from(got.buffer);
  const { buffer } = got;
  expect(got[7]).toBe(0.5);
  expect(releaseBuffer(got)).toBe(true);
  expect([got.length, bytes.length, buffer.byteLength]).toEqual([0, 0, 0]);
  expect(releaseBuffer(got)).toBe(false);
  expect(releaseBuffer(buffer)).toBe(false);
  await end(child);
});

test('memory in a file of its own is unmapped, too', async () => {
  const child = await upgraded({ upgrade: 2 });
  const before = sealedFiles();
  const got = await ask(child, sharedBuffer(SIZE).fill(3));
  expect(got.equals(Buffer.alloc(SIZE, 3))).toBe(true);
  expect(sealedFiles()).toBe(before + 1);
  expect(releaseBuffer(got.buffer)).toBe(true);
  // libuv's threads may have let go of it only now.
  while (sealedFiles() > before) await turn();
  await end(child);
});

test('a Buffer of sharedBuffer() that is not sent gives its area back', async () => {
  const child = await upgraded();
  for (let n = 0; n < 20; n++) {
    const buffer = sharedBuffer(SIZE, child).fill(n);
    expect(buffer.length).toBe(SIZE);
    expect(releaseBuffer(buffer)).toBe(true);
    expect(buffer.length).toBe(0);
    await turn();
  }
  const areas = fs.readFileSync('/proc/self/maps', 'utf8').match(/\/memfd:brood-area/g);
  expect(areas.length).toBeLessThanOrEqual(2);
  const sent = sharedBuffer(SIZE, child).fill(9);
  const got = await ask(child, sent);
  expect(releaseBuffer(sent)).toBe(false);
  expect(got.equals(Buffer.alloc(SIZE, 9))).toBe(true);
  await end(child);
});

test('any other Buffer stays as it is', async () => {
  const child = await upgraded();
  const small = await ask(child, Buffer.from('small'));
  const own = Buffer.alloc(SIZE, 5);
  for (const buffer of [small, own, own.buffer, new SharedArrayBuffer(8)]) {
    expect(releaseBuffer(buffer)).toBe(false);
  }
  expect(small.toString()).toBe('small');
  expect(own.length).toBe(SIZE);
  await end(child);
});

test.each([undefined, null, 7, 'text', {}, []])('%p is no memory', (value) => {
  expect(() => releaseBuffer(value)).toThrow(
    expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE', name: 'TypeError' }),
  );
});
