'use strict';

// S11. Sockets handed on with send(): the parent accepts, the child answers.

const path = require('node:path');
const { once } = require('node:events');
const { both, cpuSince } = require('./both');
const { dispatched, knock, load } = require('./load');

const ANSWER = path.join(__dirname, '..', 'children', 'answer.js');

function handedOn({ bothEnds }) {
  return async ({ childProcess, sameExecArgv, quick }) => {
    const net = require('node:net');
    const child = childProcess.fork(ANSWER, [], { execArgv: bothEnds ? sameExecArgv : [] });
    await once(child, 'message');
    const server = net.createServer({ pauseOnConnect: true }, (socket) => {
      child.send('socket', socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    let before;
    const begin = () => (before = process.cpuUsage());
    const { requests, errors, seconds } = await load(server.address().port, { quick, begin });
    return { rate: requests / seconds, lost: errors, cpu: cpuSince(before) / requests };
  };
}

/** The same without handing on: the parent answers. */
async function answered({ quick }) {
  const net = require('node:net');
  const { answer } = require('../children/answer');
  const server = net.createServer(answer);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { requests, seconds } = await load(server.address().port, { quick });
  return { rate: requests / seconds };
}

/** What accepting costs Node by itself: the parent closes each connection. */
async function acceptedAndClosed({ quick }) {
  const net = require('node:net');
  let count = 0;
  const server = net.createServer({ pauseOnConnect: true }, (socket) => {
    count++;
    socket.destroy();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  let before;
  const begin = () => {
    count = 0;
    before = process.cpuUsage();
  };
  await knock(server.address().port, { quick, begin });
  return { cpu: cpuSince(before) / count };
}

module.exports = [
  {
    id: 'S11',
    programs: true,
    contestants: {
      ...both(handedOn({ bothEnds: false })),
      'brood both ends': { uses: 'brood', measure: handedOn({ bothEnds: true }) },
      'Rust parent': { measure: dispatched('send', ANSWER) },
      'not handed on': { measure: answered },
      'accepted and closed': { measure: acceptedAndClosed },
    },
    comparisons: [
      {
        id: 'S11',
        work: 'sockets handed on with send(), to a stock child',
        figure: 'rate',
        unit: '1/s',
        better: 'more',
        losses: true,
        limit: 'Rust parent',
        target: '1.4x stock, none lost',
        reached: ({ ratio, lost }) => ratio >= 1.4 && lost.brood === 0,
      },
      {
        id: 'S11',
        work: "the parent's processor time for one",
        figure: 'cpu',
        unit: 'us',
        better: 'less',
        limit: 'Rust parent',
        others: ['accepted and closed'],
        target: '',
      },
      {
        id: 'S11',
        work: 'the same, both ends alike',
        figure: 'rate',
        unit: '1/s',
        better: 'more',
        losses: true,
        brood: 'brood both ends',
        limit: 'not handed on',
        target: '2x stock, none lost',
        reached: ({ ratio, lost }) => ratio >= 2 && lost.brood === 0,
      },
    ],
  },
];
