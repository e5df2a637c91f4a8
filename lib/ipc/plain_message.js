'use strict';

// Tells the messages for which structured clone and JSON do the same: strings, numbers, booleans,
// null, and small trees of plain objects and arrays of them. Where brood is at both ends these
// travel as JSON on an 'advanced' channel, too, which is several times faster.

const { isProxy } = require('node:util').types;

const DEEPEST = 4;
const MOST = 64;
const LONGEST = 4096;

// What JSON makes of these is not itself.
function isPlainNumber(value) {
  return Number.isFinite(value) && (value !== 0 || 1 / value > 0);
}

class Copier {
  left = MOST;
  // Objects inside the message: one that occurs twice must arrive as one.
  seen = null;

  // A copy of `value`, or undefined when JSON would not do. A copy, because a getter may return
  // something else the second time.
  copy(value, depth) {
    switch (typeof value) {
      case 'string':
        return value.length <= LONGEST ? value : undefined;
      case 'boolean':
        return value;
      case 'number':
        return isPlainNumber(value) ? value : undefined;
      case 'object':
        if (value === null) return value;
        return this.copyObject(value, depth);
      default:
        return undefined;
    }
  }

  copyObject(value, depth) {
    if (depth === DEEPEST || isProxy(value) || value.toJSON !== undefined) return undefined;
    if (depth > 0 && this.isKnown(value)) return undefined;
    if (Array.isArray(value)) return this.copyArray(value, depth);
    if (Object.getPrototypeOf(value) !== Object.prototype) return undefined;
    const copy = { ...value };
    for (const key in copy) {
      const own = copy[key];
      if (typeof own === 'string' && own.length <= LONGEST) this.left--;
      else if ((copy[key] = this.copy(own, depth + 1)) === undefined) return undefined;
      else this.left--;
    }
    return this.left >= 0 ? copy : undefined;
  }

  copyArray(value, depth) {
    const { length } = value;
    if (length > this.left || Object.getPrototypeOf(value) !== Array.prototype) return undefined;
    if (Object.keys(value).length !== length) return undefined;
    this.left -= length;
    const copy = new Array(length);
    for (let i = 0; i < length; i++) {
      if ((copy[i] = this.copy(value[i], depth + 1)) === undefined) return undefined;
    }
    return copy;
  }

  isKnown(value) {
    if (this.seen === null) this.seen = [value];
    else if (this.seen.includes(value)) return true;
    else this.seen.push(value);
    return false;
  }
}

/** The message's JSON, or undefined when structured clone would make something else of it. */
function plainText(message) {
  const copy = new Copier().copy(message, 0);
  return copy === undefined ? undefined : JSON.stringify(copy);
}

module.exports = { plainText };
