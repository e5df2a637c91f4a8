'use strict';

// Medians and quantiles of a few numbers.

function quantile(numbers, q) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const below = Math.floor(at);
  const above = Math.ceil(at);
  return sorted[below] + (sorted[above] - sorted[below]) * (at - below);
}

function median(numbers) {
  return quantile(numbers, 0.5);
}

module.exports = { median, quantile };
