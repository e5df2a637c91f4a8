'use strict';

// A timer that gives back what lies idle. It does not keep the process alive, and runs only while
// there is something to look after.

const { clearTimeout, setTimeout } = require('../start').timers;

const IDLE = 10_000;

class Expiry {
  // `expire(idle)` drops what has been idle for so many milliseconds and says whether some is left.
  constructor(expire) {
    this.expire = expire;
    this.timer = null;
  }

  // There is something that may become idle.
  start() {
    if (this.timer !== null) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      if (this.expire(IDLE)) this.start();
    }, IDLE);
    this.timer.unref();
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = null;
  }
}

module.exports = { Expiry };
