'use strict';

// Answers on each socket that it is sent, once something has been asked there, and closes it.

const RESPONSE = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok';

function answer(socket) {
  socket.on('error', () => {});
  socket.once('data', () => socket.end(RESPONSE));
  socket.resume();
}

process.on('message', (message, socket) => {
  // Undefined when the other side went away on the way here.
  if (socket) answer(socket);
});
process.send?.('ready');

module.exports = { answer };
