'use strict';

// The rows, in the order of the table. A row is one piece of work that several contestants do:
//
//   id            names the row, for --only
//   contestants   name -> { uses: 'stock' or 'brood', measure(context) }; measure resolves with
//                 figures by name (see one.js for the context). `lost`, if there, counts losses.
//   turns         how often a run measures it (1): more where the machine's noise hides small differences
//   programs      true when a contestant needs the programs in Rust
//   comparisons   the lines of the table: { id, work, figure, unit, better: 'more' or 'less',
//                 stock, brood, limit, others: names of contestants (stock and brood are called so
//                 unless said otherwise), losses: whether to show them,
//                 target: in words, reached(result, machine): in numbers }
//
// No file here loads child_process, cluster, net or dgram before it measures: S16 is about that.

module.exports = [
  ...require('./spawn'),
  ...require('./messages'),
  ...require('./large'),
  ...require('./sockets'),
  ...require('./cluster'),
  ...require('./startup'),
];
