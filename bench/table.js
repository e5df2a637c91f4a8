'use strict';

// The results as a Markdown table whose columns line up, so that it reads well on a terminal too.

const { amount, ratio } = require('./format');

const HEADINGS = [
  '#',
  'work',
  'unit',
  'stock',
  'brood',
  'brood / stock',
  'brood is',
  'for scale',
  'target',
  'reached',
];

function table(results) {
  return align([HEADINGS, ...results.map(cells)]);
}

function cells(result) {
  const { id, work, target } = result;
  const missing = (words) => [id, work, result.unit ?? '', '', '', '', '', words, target, 'no'];
  if (result.failed) return missing(`failed: ${result.failed}`);
  return [
    id,
    work,
    result.unit,
    amount(result.stock),
    amount(result.brood),
    `${ratio(result.ratio)} (${result.spread.map(ratio).join(' to ')})`,
    result.verdict,
    forScale(result),
    target,
    result.reached === null ? '' : result.reached ? 'yes' : 'no',
  ];
}

/** The limit, bystanders and losses, in words. */
function forScale({ others, limit, lost }) {
  const parts = Object.entries(others).map(([name, { failed, value, ratio: ours }]) => {
    if (failed) return `${name} failed: ${failed}`;
    if (name !== limit?.name) return `${name} ${amount(value)}`;
    return `limit (${name}) ${amount(value)}, brood at ${ratio(ours)} of it`;
  });
  if (lost) parts.push(`lost: stock ${lost.stock}, brood ${lost.brood}`);
  return parts.join('; ');
}

/** The same columns and widths that prettier gives a table. */
function align(rows) {
  const escaped = rows.map((row) => row.map((cell) => cell.replaceAll('|', '\\|')));
  const widths = escaped[0].map((_, column) =>
    Math.max(3, ...escaped.map((row) => row[column].length)),
  );
  const line = (row) => `| ${row.map((cell, i) => cell.padEnd(widths[i])).join(' | ')} |`;
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`;
  return [line(escaped[0]), rule, ...escaped.slice(1).map(line)].join('\n');
}

/** One result in one line, for the terminal while the run goes on. */
function brief(result) {
  const name = `${result.id.padEnd(5)} ${result.work}`;
  if (result.failed) return `${name}: FAILED, ${result.failed}`;
  return (
    `${name}: ${amount(result.brood)} ${result.unit} against ${amount(result.stock)}, ` +
    `${ratio(result.ratio)} of it, ${result.verdict}`
  );
}

module.exports = { brief, table };
