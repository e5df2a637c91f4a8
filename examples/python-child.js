'use strict';
// Exchanges messages with a child that is not Node. All it takes on the other side is an inherited
// descriptor and lines of JSON: see python_child.py. Run it: node examples/python-child.js

const path = require('node:path');
const { spawn } = require('..');

// 'ipc' in stdio is what fork() adds: the child finds the descriptor's number in NODE_CHANNEL_FD.
const child = spawn('python3', [path.join(__dirname, 'python_child.py')], {
  stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
});

const questions = [
  { words: ['brood', 'egg', 'nest'] },
  { words: ['größe', 'naïve', '鳥'] }, // UTF-8, as JSON is
];

child.on('error', (error) => {
  if (error.code === 'ENOENT') console.error('this example needs python3 on the PATH');
  else console.error(error);
  process.exitCode = 1;
});

child.on('message', (message) => {
  console.log('python says:', message);
  const next = questions.shift();
  if (next) child.send(next);
  else child.disconnect(); // the child's next read finds the end of the stream
});

child.on('exit', (code) => {
  console.log(`python ended with ${code}`);
  process.exitCode = code ?? 1;
});
