'use strict';
// The other half of messages.js: answers questions until the parent disconnects. It needs nothing
// of brood: any Node started by fork() has process.send.

const ANSWERS = {
  sum: (numbers) => numbers.reduce((total, n) => total + n, 0n),
  count: (words) => {
    const found = new Map();
    for (const word of words) found.set(word, (found.get(word) ?? 0) + 1);
    return found;
  },
};

process.on('message', ({ id, question, value }) => {
  process.send({ id, answer: ANSWERS[question](value) });
});
