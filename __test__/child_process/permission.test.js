'use strict';
// Node's permission model: brood starts nothing without the permission, and hands the flags on.

const fs = require('node:fs');
const path = require('node:path');
const { runNode } = require('../helpers/run');
const { pipesNeedNetPermission } = require('../../lib/node_version');

const ROOT = path.resolve(__dirname, '../..');
const BROOD = JSON.stringify(ROOT);
const MODEL = process.allowedNodeEnvironmentFlags.has('--permission')
  ? '--permission'
  : '--experimental-permission';
const READ = [MODEL, '--allow-fs-read=*', '--no-warnings'];
const HAS_ADDON_FLAG = process.allowedNodeEnvironmentFlags.has('--allow-addons');
const ADDONS = HAS_ADDON_FLAG ? ['--allow-addons'] : [];

async function run(flags, code) {
  const { stdout, stderr } = await runNode([...flags, '-e', code]);
  if (stderr) throw new Error(stderr);
  return stdout;
}

const ATTEMPTS = `
  const attempt = (run) => {
    try {
      const result = run();
      return result.error ? result.error.code : 'started';
    } catch (error) {
      return { ...error, name: error.name, message: error.message, first: error.stack.split('\\n')[0] };
    }
  };
  console.log(JSON.stringify([
    attempt(() => cp.spawn('true')),
    attempt(() => cp.exec('true')),
    attempt(() => cp.execFile('true')),
    attempt(() => cp.fork('module.js')),
    attempt(() => cp.spawnSync('true')),
    attempt(() => cp.execSync('true')),
    attempt(() => cp.execFileSync('true')),
    attempt(() => new cp.ChildProcess().spawn({ file: 'true' })),
    attempt(() => cp.spawn('')),
  ], null, 1));`;

const withAddons = HAS_ADDON_FLAG ? test : test.skip;

withAddons('without the permission every call is refused as Node refuses it', async () => {
  const flags = [...READ, ...ADDONS];
  const node = await run(flags, `const cp = require('node:child_process');${ATTEMPTS}`);
  const ours = await run(flags, `const cp = require(${BROOD});${ATTEMPTS}`);
  expect(JSON.parse(ours)).toEqual(JSON.parse(node));
  expect(JSON.parse(ours)[0].code).toBe('ERR_ACCESS_DENIED');
});

withAddons('with the permission the flags travel to children in NODE_OPTIONS', async () => {
  const flags = [...READ, ...ADDONS, '--allow-child-process'];
  const code = (options) => `
    const cp = require(${BROOD});
    console.log(cp.execFileSync('env', ${options}).toString());`;
  const granted = [MODEL, '--allow-fs-read=*', ...ADDONS, '--allow-child-process'].join(' ');
  expect(await run(flags, code('{}'))).toContain(`NODE_OPTIONS=${granted}\n`);
  const given = `{ env: { NODE_OPTIONS: '--max-old-space-size=99' } }`;
  expect(await run(flags, code(given))).toBe(`NODE_OPTIONS=--max-old-space-size=99 ${granted}\n\n`);
  const own = `{ env: { NODE_OPTIONS: '${MODEL}' } }`;
  expect(await run(flags, code(own))).toBe(`NODE_OPTIONS=${MODEL}\n\n`);
});

withAddons('a child of Node is bound by the flags of its parent', async () => {
  const child = `
    try { require('node:fs').writeFileSync('/tmp/brood-permission', ''); console.log('written'); }
    catch (error) { console.log(error.code); }`;
  const code = `
    const cp = require(${BROOD});
    console.log(cp.execFileSync(process.execPath, ['-e', ${JSON.stringify(child)}], { stdio: 'pipe' }).toString());`;
  expect(await run([...READ, ...ADDONS, '--allow-child-process'], code)).toBe(
    'ERR_ACCESS_DENIED\n\n',
  );
  expect(fs.existsSync('/tmp/brood-permission')).toBe(false);
});

withAddons('diagnostics() leaves out what it is not permitted to see', async () => {
  const flags = [MODEL, `--allow-fs-read=${ROOT}/*`, '--no-warnings', ...ADDONS];
  const code = `console.log(JSON.stringify(require(${BROOD}).diagnostics().counters));`;
  expect(JSON.parse(await run(flags, code))).toMatchObject({ descriptors: null, children: 0 });
});

const auditing = process.allowedNodeEnvironmentFlags.has('--permission-audit') ? test : test.skip;

auditing('an audit reports and goes on', async () => {
  const code = `
    const seen = [];
    require('node:diagnostics_channel').subscribe('node:permission-model:child', (message) =>
      seen.push([message.permission, message.resource]));
    const { status } = require(${BROOD}).spawnSync('true');
    console.log(JSON.stringify([status, seen]));`;
  const text = await run(['--permission-audit', '--allow-addons', '--no-warnings'], code);
  expect(JSON.parse(text)).toEqual([0, [['ChildProcess', 'true']]]);
});

(pipesNeedNetPermission ? test : test.skip)(
  'without the net permission nothing is started that would need a stream',
  async () => {
    const flags = [...READ, ...ADDONS, '--allow-child-process'];
    const code = `
      const cp = require(${BROOD});
      for (const stdio of ['pipe', ['ignore', 'inherit', 'overlapped']]) {
        try {
          cp.spawn('sleep', ['1000'], { stdio });
        } catch (error) {
          console.log(error.code, error.permission, cp.diagnostics().counters.children);
        }
      }
      cp.spawn('echo', ['inherited'], { stdio: 'inherit' });`;
    const refused = 'ERR_ACCESS_DENIED Net 0\n';
    expect(await run(flags, code)).toBe(`${refused}${refused}inherited\n`);
    const registered = ['-r', path.join(ROOT, 'register.js')];
    const stays = `require('node:child_process').exec('echo hi', (_, stdout) => console.log(stdout));`;
    expect(await run([...flags, ...registered], stays)).toBe('hi\n\n');
  },
);
