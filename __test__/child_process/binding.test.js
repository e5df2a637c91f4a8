'use strict';
// Loading the addon: from the package alone, in its exact version, and with one clear sentence when
// that is not possible.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { ROOT, runNode } = require('../helpers/run');

const directories = [];

afterAll(() => {
  for (const directory of directories) fs.rmSync(directory, { recursive: true });
});

/** A directory with the package's JavaScript and whatever else `files` says. */
function packageCopy(files = {}) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-package-'));
  directories.push(directory);
  fs.cpSync(path.join(ROOT, 'lib'), path.join(directory, 'lib'), { recursive: true });
  for (const name of ['index.js', 'package.json']) {
    fs.copyFileSync(path.join(ROOT, name), path.join(directory, name));
  }
  for (const [name, source] of Object.entries(files)) {
    const target = path.join(directory, name);
    if (Buffer.isBuffer(source)) fs.writeFileSync(target, source);
    else fs.copyFileSync(source, target);
  }
  return directory;
}

/** What using the package in `directory` comes to in a fresh process, after `before`. */
async function load(directory, before = '', options = {}) {
  const code = `${before};
    try { require(${JSON.stringify(directory)}).ChildProcess; console.log('loaded'); }
    catch (error) { console.log(error.code + ': ' + error.message); }`;
  const { stdout } = await runNode([...(options.flags ?? []), '-e', code], options);
  return stdout.trim().replaceAll(directory, 'DIR');
}

const ADDON = path.join(ROOT, 'brood.node');
const pretend = (name) =>
  `Object.defineProperty(process, 'versions', { value: { ...process.versions, ${name}: '1.0' } })`;

test('the addon beside package.json is loaded', async () => {
  expect(await load(packageCopy({ 'brood.node': ADDON }))).toBe('loaded');
});

test('without it there is one sentence that says what to do', async () => {
  const said = await load(packageCopy());
  expect(said).toBe(
    'ERR_BROOD_NOT_BUILT: brood\'s addon is not built: install Rust and run "npm run build" in DIR.',
  );
});

test('an addon in the working directory is not looked at', async () => {
  const elsewhere = packageCopy({ 'brood.node': ADDON });
  expect(await load(packageCopy(), '', { cwd: elsewhere })).toMatch(/^ERR_BROOD_NOT_BUILT/);
});

test('an addon of another version is refused', async () => {
  const directory = packageCopy({ 'brood.node': ADDON });
  const manifest = path.join(directory, 'package.json');
  const { version } = require(manifest);
  fs.writeFileSync(manifest, JSON.stringify({ version: '9.9.9' }));
  expect(await load(directory)).toBe(
    `ERR_BROOD_VERSION: brood is version 9.9.9 but its addon is ${version}: run "npm run build" in DIR.`,
  );
});

test('a broken addon is told from a missing one', async () => {
  const said = await load(packageCopy({ 'brood.node': Buffer.from('no addon') }));
  expect(said).toMatch(
    /^ERR_BROOD_LOAD: brood's addon cannot be loaded \(.*\): run "npm run build" in DIR\.$/s,
  );
});

test.each([
  ['bun', 'Bun'],
  ['deno', 'Deno'],
])('under %s the addon is not touched', async (key, name) => {
  const said = await load(packageCopy({ 'brood.node': Buffer.from('no addon') }), pretend(key));
  expect(said).toBe(
    `ERR_BROOD_UNSUPPORTED: brood is an addon for Node.js and does not run under ${name}: use node:child_process there.`,
  );
});

test('another platform is named', async () => {
  const said = await load(
    packageCopy({ 'brood.node': ADDON }),
    `Object.defineProperty(process, 'platform', { value: 'darwin' })`,
  );
  expect(said).toMatch(/^ERR_BROOD_UNSUPPORTED: .*this is darwin/);
});

const hasAddonFlag = process.allowedNodeEnvironmentFlags.has('--allow-addons');

(hasAddonFlag ? test : test.skip)('without --allow-addons the flag is named', async () => {
  const flags = ['--permission', '--allow-fs-read=*', '--no-warnings'].map((flag) =>
    process.allowedNodeEnvironmentFlags.has(flag.split('=')[0])
      ? flag
      : '--experimental-permission',
  );
  const said = await load(packageCopy({ 'brood.node': ADDON }), '', { flags });
  expect(said).toMatch(/^ERR_BROOD_LOAD: .*run Node with --allow-addons\.$/);
});

test('what is certain without the addon is said when the package is required', async () => {
  const directory = packageCopy();
  const { stderr } = await runNode(['-e', `require(${JSON.stringify(directory)})`]);
  expect(stderr).toContain("brood's addon is not built");
});
