'use strict';
// Runs every example as the README promises it, and looks at what it prints. serve.js, which does
// not end by itself, has its own tests at the end.

const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const { once } = require('node:events');
const path = require('node:path');

const { ROOT, runNode, waitForOutput } = require('./helpers/run');
const { isRunning } = require('./helpers/system');

const EXAMPLES = path.join(ROOT, 'examples');

const ENDING = [
  [
    'cluster.js',
    [],
    [
      /^2 workers share a port, policy least-connections$/m,
      /^answered by 2 workers$/m,
      /^answered while one was replaced: 40 of 40$/m,
    ],
  ],
  ['fork-per-core.js', [], [/^(\d+) of \1 children answered: 33860 primes below 400000$/m]],
  [
    'four-ways.js',
    [],
    [
      /^spawn: hello spawn$/m,
      /^spawn: ended with 0$/m,
      /^exec: HELLO EXEC$/m,
      /^execFile: hello execFile$/m,
      /^fork: hello fork$/m,
      /^fork: and hello over the channel$/m,
    ],
  ],
  [
    'messages.js',
    [],
    [
      /^sum: 18446744073709551619n$/m,
      /^count: Map\(3\) { 'egg' => 3, 'nest' => 1, 'feather' => 1 }$/m,
      /^the channel is closed$/m,
      /^the child ended with 0$/m,
    ],
  ],
  [
    'tcp-server-one-child.js',
    [],
    [/^parent (\d+) was told: child (?!\1 )\d+ serves you$/m, /^the child ended with 0$/m],
  ],
  [
    'tcp-server-two-children.js',
    [],
    [/^the (first|second) child served \d+$/m, /^the parent's listener was closed: 20 served$/m],
  ],
  [
    'tcp-server-two-children.js',
    ['--keep-open'],
    [/served \d+$/m, /^the parent's listener was open: 20 served$/m],
  ],
  ['http-in-children.js', [], [/^200 child \d+ answers \/1$/m, /^200 child \d+ answers \/10$/m]],
  [
    'python-child.js',
    [],
    [
      /^python says: { ready: true, pid: \d+ }$/m,
      /^python says: { lengths: { brood: 5, egg: 3, nest: 4 } }$/m,
      /^python says: { lengths: { 'größe': 5, 'naïve': 5, '鳥': 1 } }$/m,
      /^python ended with 0$/m,
    ],
  ],
  [
    'udp-socket.js',
    [],
    [/^child \d+ heard one$/m, /^child \d+ heard two$/m, /^child \d+ heard three$/m],
  ],
];

// Programs that the others start.
const CHILDREN = ['messages-child.js'];

test.each(ENDING)('%s %j does what it says and ends', async (file, args, patterns) => {
  const { code, signal, stdout, stderr } = await runNode([path.join(EXAMPLES, file), ...args]);
  for (const pattern of patterns) expect(stdout).toMatch(pattern);
  expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: '' });
});

test('the parent that closed its listener serves nothing itself', async () => {
  const { stdout } = await runNode([path.join(EXAMPLES, 'tcp-server-two-children.js')]);
  expect(stdout).not.toMatch(/^the parent served/m);
});

test('every example is run here', () => {
  const files = fs.readdirSync(EXAMPLES).filter((name) => name.endsWith('.js'));
  const run = [...ENDING.map(([file]) => file), ...CHILDREN, 'serve.js'];
  expect(files).toEqual([...new Set(run)].sort());
});

describe('serve.js', () => {
  const serve = (onStart, ...args) =>
    runNode([path.join(EXAMPLES, 'serve.js'), ...args], { env: { WORKERS: '2' }, onStart });

  const started = async (child) => {
    const [, port] = await waitForOutput(child.stdout, /http:\/\/localhost:(\d+)\//);
    return Number(port);
  };

  /** Resolves to the pid of the worker that answered. */
  async function ask(port) {
    const url = `http://127.0.0.1:${port}/`;
    const [response] = await once(http.get(url, { agent: false }), 'response');
    let body = '';
    for await (const chunk of response.setEncoding('utf8')) body += chunk;
    return Number(/^worker (\d+) answers/.exec(body)[1]);
  }

  test('serves one port from its workers until SIGINT, then leaves none behind', async () => {
    let answered;
    const { code, stdout } = await serve(async (child) => {
      const port = await started(child);
      answered = [await ask(port), await ask(port), await ask(port)];
      expect(answered).not.toContain(child.pid);
      child.kill('SIGINT');
    }, '0');
    expect(code).toBe(0);
    expect(stdout).toMatch(/with 2 workers/);
    expect(stdout).toMatch(/^served 3 requests, replaced 0 workers$/m);
    const workers = [...stdout.matchAll(/^worker (\d+) started$/gm)].map(([, pid]) => Number(pid));
    expect(workers).toEqual(expect.arrayContaining(answered));
    expect(workers).toHaveLength(2);
    expect(workers.filter(isRunning)).toEqual([]);
  });

  test('replaces a worker that was killed, and refuses nobody meanwhile', async () => {
    let port;
    const { code, stdout } = await serve(async (child) => {
      port = await started(child);
      const victim = await ask(port);
      process.kill(victim, 'SIGKILL');
      await waitForOutput(child.stdout, new RegExp(`^worker ${victim} ended \\(SIGKILL\\)`, 'm'));
      expect(await ask(port)).not.toBe(victim);
      await waitForOutput(child.stdout, /^worker \d+ started$/m);
      child.kill('SIGTERM');
    }, '0');
    expect(code).toBe(0);
    expect(stdout).toMatch(/replaced 1 workers$/m);
  });

  test('workers end when the primary is killed', async () => {
    let worker;
    await serve(async (child) => {
      worker = await ask(await started(child));
      child.kill('SIGKILL');
    }, '0');
    // The outputs, which the workers share, are closed: so all of them have ended.
    expect(isRunning(worker)).toBe(false);
  });

  test('says so when the port is taken', async () => {
    const other = net.createServer().listen(0);
    await once(other, 'listening');
    const { port } = other.address();
    const { code, stderr } = await serve(undefined, String(port));
    other.close();
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`^cannot serve port ${port}: .*EADDRINUSE`));
  });
});
