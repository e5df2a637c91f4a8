'use strict';

// Numbers as people read them.

/** Three digits, and thousands as `12.3 k`, millions as `1.23 M`. */
function amount(number) {
  if (!Number.isFinite(number)) return '-';
  const size = Math.abs(number);
  if (size >= 999_500) return `${digits(number / 1e6)} M`;
  if (size >= 9995) return `${digits(number / 1e3)} k`;
  return digits(number);
}

function digits(number) {
  const size = Math.abs(number);
  if (size >= 99.95) return number.toFixed(0);
  if (size >= 9.995) return number.toFixed(1);
  if (size >= 0.995 || number === 0) return number.toFixed(2);
  return number.toPrecision(2);
}

/** A ratio; small ones as `1/300`. */
function ratio(number) {
  return number > 0 && number < 0.0995 ? `1/${amount(1 / number)}` : amount(number);
}

module.exports = { amount, ratio };
