// The same for import: each name, and the whole as default.

import brood from './index.js';

export const {
  _forkChild,
  ChildProcess,
  adoptChannel,
  cluster,
  diagnostics,
  exec,
  execFile,
  execFileSync,
  execSync,
  fork,
  killTree,
  releaseBuffer,
  sharedBuffer,
  spawn,
  spawnSync,
} = brood;

export default brood;
