'use strict';
// Parent and child exchange messages: questions with answers that find their way back, values that
// JSON has no words for, and an orderly end. The child is messages-child.js.
// Run it: node examples/messages.js

const path = require('node:path');
const { fork } = require('..');

// 'advanced' carries what structured clone carries: Map, Date, BigInt, typed arrays. The default,
// 'json', carries what JSON does.
const child = fork(path.join(__dirname, 'messages-child.js'), { serialization: 'advanced' });

// Answers may come in any order: a number ties each to its question.
const waiting = new Map();
let nextId = 1;

child.on('message', ({ id, answer }) => {
  waiting.get(id)(answer);
  waiting.delete(id);
});

function ask(question, value) {
  return new Promise((resolve, reject) => {
    const id = nextId++;
    waiting.set(id, resolve);
    // The callback hears whether the message went out, not whether anybody answered.
    child.send({ id, question, value }, (error) => error && reject(error));
  });
}

async function main() {
  const words = ['egg', 'nest', 'egg', 'feather', 'egg'];
  const [sum, counted] = await Promise.all([
    ask('sum', [1n, 2n, 2n ** 64n]),
    ask('count', words), // answered with a Map
  ]);
  console.log('sum:', sum);
  console.log('count:', counted);

  child.on('disconnect', () => console.log('the channel is closed'));
  child.on('exit', (code) => console.log(`the child ended with ${code}`));
  child.disconnect();
}

main();
