'use strict';
// Starts the same program in the four ways there are, and says what sets them apart.
// Run it: node examples/four-ways.js

const { exec, execFile, fork, spawn } = require('..');

if (process.argv[2] === 'program') program();
else main();

/** The program: greets whoever its argument names, and says so over IPC if it has a channel. */
function program() {
  console.log(`hello ${process.argv[3]}`);
  if (process.send) process.send('and hello over the channel');
}

function main() {
  const node = process.execPath;

  // spawn: streams while the program runs. For long output, long lives and pipes between programs.
  const spawned = spawn(node, [__filename, 'program', 'spawn']);
  spawned.stdout.setEncoding('utf8').on('data', (text) => report('spawn', text));
  spawned.on('close', (code) => report('spawn', `ended with ${code}`));

  // exec: a line for the shell, the whole output at the end. Quote what goes into that line: better
  // still, hand it over in the environment, where no quoting is needed.
  const env = { ...process.env, NODE: node, FILE: __filename };
  exec('"$NODE" "$FILE" program exec | tr a-z A-Z', { env }, (error, stdout) => {
    report('exec', error ? error.message : stdout);
  });

  // execFile: the whole output at the end, and no shell in between, so nothing to quote.
  execFile(node, [__filename, 'program', 'execFile'], (error, stdout) => {
    report('execFile', error ? error.message : stdout);
  });

  // fork: for Node programs only. Adds a channel for messages in both directions.
  const forked = fork(__filename, ['program', 'fork'], { silent: true });
  forked.stdout.setEncoding('utf8').on('data', (text) => report('fork', text));
  forked.on('message', (message) => report('fork', message));
}

function report(how, text) {
  console.log(`${how}: ${text.trim()}`);
}
