'use strict';
// In a child: brood's channel in the place of the one that stock Node has set up. The parent is
// stock, so that only one side is under test.

const { fork } = require('node:child_process');
const { once } = require('node:events');
const brood = require('../..');
const { ROOT, fixture } = require('../helpers/run');

const REGISTER = ['-r', `${ROOT}/register.js`];
const LATE = fixture('late-takeover.js');

/** Starts `script` and resolves with what its first message is after all of `messages`. */
async function converse(script, messages, options) {
  const child = fork(script, options);
  const exited = once(child, 'exit');
  for (const message of messages) child.send(message);
  const [answer] = await once(child, 'message');
  child.disconnect();
  await exited;
  return answer;
}

/** Runs a script given as text in a child with a channel; resolves with the child and its output. */
function start(source, options) {
  const child = fork('-e', [source], {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    execPath: process.execPath,
    ...options,
  });
  const output = { text: '' };
  child.stdout.setEncoding('utf8').on('data', (text) => (output.text += text));
  return { child, output };
}

describe.each(['json', 'advanced'])('%s', (serialization) => {
  test('20 000 messages keep their order through a takeover in their middle', async () => {
    const numbers = Array.from({ length: 20_000 }, (_, i) => i);
    const messages = [...numbers.slice(0, 7000), 'adopt', ...numbers.slice(7000), 'report'];
    const order = await converse(LATE, messages, { serialization });
    expect(order.length).toBe(20_001);
    expect(order[7000]).toEqual(['adopted', true]);
    expect(order.filter((entry) => typeof entry === 'number')).toEqual(numbers);
  });

  test('the part of a message that Node has read before is not lost', async () => {
    // Larger than one read of Node's and than the socket's buffer: when 'adopt' is handled, its
    // beginning has been read and its end not yet been written.
    const large = { text: `${serialization}${'ü'.repeat(300_000)}` };
    for (const odd of ['', 'o']) {
      const messages = [`adopt`, odd, large, large, 'report'];
      const order = await converse(LATE, messages, { serialization });
      const same = order.slice(2).map(({ text }) => text === large.text);
      expect([order[0], order[1], ...same]).toEqual([['adopted', true], odd, true, true]);
    }
  });

  test("under register the channel is brood's from the first message on", async () => {
    const numbers = Array.from({ length: 20_000 }, (_, i) => i);
    const options = { serialization, execArgv: REGISTER };
    const order = await converse(LATE, [...numbers, 'adopt', 'report'], options);
    // There was nothing left to adopt.
    expect(order.pop()).toEqual(['adopted', false]);
    expect(order).toEqual(numbers);
  });

  test('messages that came before anybody listened survive the takeover', async () => {
    const source = `
      const brood = require(${JSON.stringify(ROOT)});
      process.channel.ref();
      // Node parks the messages; the last of them is what we wait for without listening.
      process.on('internalMessage', () => {
        const parked = Object.getOwnPropertySymbols(process.channel)
          .map((symbol) => process.channel[symbol])
          .find(Array.isArray);
        setImmediate(() => {
          const before = parked.length;
          const adopted = brood.adoptChannel();
          const received = [];
          process.on('message', (message) => {
            received.push(message);
            if (received.length === 3) process.send({ before, adopted, received });
          });
        });
      });
    `;
    const { child } = start(source, { serialization });
    const exited = once(child, 'exit');
    for (const message of ['one', { two: 2 }, 'three', { cmd: 'NODE_NOW' }]) child.send(message);
    const [answer] = await once(child, 'message');
    child.disconnect();
    await exited;
    expect(answer).toEqual({ before: 3, adopted: true, received: ['one', { two: 2 }, 'three'] });
  });
});

test('a handle that Node has read in the same turn still arrives after the takeover', async () => {
  const source = `
    const brood = require(${JSON.stringify(ROOT)});
    process.on('message', (message, handle) => {
      if (message === 'adopt') console.log('adopted', brood.adoptChannel());
      if (handle === undefined) return;
      console.log(message, typeof handle.listen);
      handle.close();
      process.disconnect();
    });
  `;
  const server = require('node:net').createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { child, output } = start(source);
  const closed = once(child, 'close');
  child.send('adopt');
  child.send('server', server);
  server.close();
  await closed;
  expect(output.text).toBe('adopted true\nserver function\n');
});

test('a reference taken or given up before the takeover stays as it is', async () => {
  const source = (act) => `
    const brood = require(${JSON.stringify(ROOT)});
    ${act}
    console.log(brood.adoptChannel());
    process.on('exit', () => console.log('ended'));
  `;
  const unreferenced = start(source(`process.on('message', () => {}); process.channel.unref();`));
  await once(unreferenced.child, 'close');
  expect(unreferenced.output.text).toBe('true\nended\n');

  const referenced = start(source(`process.channel.ref();`));
  await once(referenced.child.stdout, 'data');
  expect(referenced.output.text).toBe('true\n');
  const outputEnded = once(referenced.child.stdout, 'end');
  referenced.child.disconnect();
  await outputEnded;
  expect(referenced.output.text).toBe('true\nended\n');
});

/**
 * Whether the child ended although its channel was open: 'ended', or 'stayed'. One that is expected
 * to end has all the time that a test has, for on a busy machine its start alone may take seconds.
 */
async function fate(how, execArgv, expected) {
  const child = fork(fixture('exits-like-stock.js'), [how], {
    execArgv,
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  child.on('message', () => child.send('answer'));
  const ended = once(child, 'exit').then(() => 'ended');
  const stayed = new Promise((resolve) => {
    if (expected === 'stayed') setTimeout(resolve, 1500, 'stayed').unref();
  });
  const result = await Promise.race([ended, stayed]);
  if (child.connected) child.disconnect();
  await ended;
  return result;
}

describe('a child lives exactly as long as under stock Node with', () => {
  test.each([
    ['no listener', 'ended'],
    ['a message listener', 'stayed'],
    ['a disconnect listener', 'stayed'],
    ['a once listener', 'stayed'],
    ['a listener removed again', 'ended'],
    ['one of two listeners removed', 'stayed'],
    ['all listeners removed', 'ended'],
    ['a listener, unreferenced', 'ended'],
    ['no listener, referenced', 'stayed'],
    ['referenced, a listener removed', 'stayed'],
    ['a once listener that was called', 'ended'],
  ])('%s', async (how, expected) => {
    const both = await Promise.all([fate(how, [], expected), fate(how, REGISTER, expected)]);
    expect(both).toEqual([expected, expected]);
  });
});

test('process has the same properties as with the channel of stock Node', async () => {
  const source = `
    const names = ['channel', 'connected', 'send', '_send', 'disconnect', '_disconnect', '_channel'];
    const say = () => names.map((name) => {
      const own = Object.getOwnPropertyDescriptor(process, name);
      return own === undefined ? 'none'
        : [typeof process[name], own.enumerable, own.configurable, process[name]?.length].join();
    });
    const before = [...say(), process.channel.fd >= 0];
    process.once('disconnect', () => console.log(JSON.stringify([before, say()])));
    process.disconnect();
  `;
  const reports = [];
  for (const execArgv of [[], REGISTER]) {
    const { child, output } = start(source, { execArgv: ['--no-deprecation', ...execArgv] });
    await once(child, 'close');
    reports.push(JSON.parse(output.text));
  }
  expect(reports[1]).toEqual(reports[0]);
});

test('process.disconnect() twice is the error that stock Node emits', async () => {
  const source = `
    process.on('error', (error) => console.log(error.code, process.connected, process.channel));
    process.on('disconnect', () => {
      console.log('disconnect');
      process.disconnect();
      process.send('late', (error) => console.log(error.code));
    });
    process.disconnect();
  `;
  const said = [];
  for (const execArgv of [[], REGISTER]) {
    const { child, output } = start(source, { execArgv });
    await once(child, 'close');
    said.push(output.text);
  }
  expect(said[0]).toBe('disconnect\nERR_IPC_DISCONNECTED false null\nERR_IPC_CHANNEL_CLOSED\n');
  expect(said[1]).toBe(said[0]);
});

test('a child that is disconnected while a socket waits for its turn closes the socket', async () => {
  const net = require('node:net');
  const source = `
    process.on('message', (message) => {
      if (message === 'bye') process.disconnect();
    });
  `;
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = net.connect(server.address().port, '127.0.0.1');
  const [accepted] = await once(server, 'connection');
  server.close();
  // Stock Node would keep the socket for ever, waiting for an acknowledgement.
  const child = brood.fork('-e', [source], { execArgv: REGISTER });
  const ended = once(client.resume(), 'close');
  const exited = once(child, 'exit');
  child.send('bye');
  child.send('a socket', accepted);
  expect((await exited)[0]).toBe(0);
  await ended;
});
