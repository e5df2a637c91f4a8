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

// One look at a message.
class Look {
  left = MOST;
  // Objects inside the message: one that occurs twice must arrive as one.
  seen = null;

  isPlain(value, depth) {
    switch (typeof value) {
      case 'string':
        return value.length <= LONGEST;
      case 'boolean':
        return true;
      case 'number':
        return isPlainNumber(value);
      case 'object':
        return value === null || this.isPlainObject(value, depth);
      default:
        return false;
    }
  }

  isPlainObject(value, depth) {
    if (depth === DEEPEST || isProxy(value)) return false;
    if (depth > 0 && this.isKnown(value)) return false;
    if (Array.isArray(value)) return this.isPlainArray(value, depth);
    if (Object.getPrototypeOf(value) !== Object.prototype || 'toJSON' in value) return false;
    for (const key in value) {
      this.left--;
      if (!this.isPlain(dataOf(value, key), depth + 1)) return false;
    }
    return this.left >= 0;
  }

  isPlainArray(value, depth) {
    const { length } = value;
    if (length > this.left || Object.getPrototypeOf(value) !== Array.prototype) return false;
    if ('toJSON' in value || Object.keys(value).length !== length) return false;
    this.left -= length;
    for (let i = 0; i < length; i++) {
      if (!this.isPlain(dataOf(value, i), depth + 1)) return false;
    }
    return true;
  }

  isKnown(value) {
    if (this.seen === null) this.seen = [value];
    else if (this.seen.includes(value)) return true;
    else this.seen.push(value);
    return false;
  }
}

// A property of the object's own; undefined, which is not plain, for what a getter would have to say:
// it may be called once only, by whoever serializes the message.
function dataOf(object, key) {
  return Object.getOwnPropertyDescriptor(object, key)?.value;
}

/** The message's JSON, or undefined when structured clone would make something else of it. */
function plainText(message) {
  return new Look().isPlain(message, 0) ? JSON.stringify(message) : undefined;
}

module.exports = { plainText };
