'use strict';

// From the runs of a row to what the table and the plot show: medians, the ratio of pairs, its
// spread, and whether brood is ahead. Pure.

const { median, quantile } = require('./statistics');

/** One result for each comparison of the row. */
function summarize(row, { runs, errors }, machine) {
  return row.comparisons.map((comparison) => compare(comparison, runs, errors, machine));
}

function compare(comparison, runs, errors, machine) {
  const { id, work, figure, unit, better, target } = comparison;
  const { stock = 'stock', brood = 'brood', limit, others = [] } = comparison;
  const result = { id, work, figure, unit, better, target };
  const failed = [stock, brood].filter((name) => errors[name]);
  if (failed.length > 0) {
    return { ...result, failed: failed.map((name) => `${name}: ${errors[name]}`).join('; ') };
  }

  const of = (name) => runs.map((run) => run[name][figure]);
  const ratios = paired(of(brood), of(stock), (ours, theirs) => ours / theirs);
  Object.assign(result, {
    stock: median(of(stock)),
    brood: median(of(brood)),
    ratio: median(ratios),
    spread: [Math.min(...ratios), Math.max(...ratios)],
    difference: median(paired(of(brood), of(stock), (ours, theirs) => ours - theirs)),
    verdict: verdict(ratios, better),
    others: {},
  });
  for (const name of limit ? [limit, ...others] : others) {
    result.others[name] = errors[name]
      ? { failed: errors[name] }
      : { value: median(of(name)), ratio: median(paired(of(brood), of(name), (a, b) => a / b)) };
  }
  if (limit && !errors[limit]) result.limit = { name: limit, ...result.others[limit] };
  if (comparison.losses) result.lost = losses(runs, { stock, brood });
  result.reached = comparison.reached?.(result, machine) ?? null;
  return result;
}

function paired(ours, theirs, combine) {
  return ours.map((value, i) => combine(value, theirs[i]));
}

/** `ahead` or `behind` when the middle half of all pairs agrees, `even` otherwise. */
function verdict(ratios, better) {
  const advantages = better === 'more' ? ratios : ratios.map((ratio) => 1 / ratio);
  if (quantile(advantages, 0.25) > 1) return 'ahead';
  if (quantile(advantages, 0.75) < 1) return 'behind';
  return 'even';
}

/** How much of the work was lost in all runs. */
function losses(runs, names) {
  const sum = (name) => runs.reduce((total, run) => total + run[name].lost, 0);
  return { stock: sum(names.stock), brood: sum(names.brood) };
}

module.exports = { summarize };
