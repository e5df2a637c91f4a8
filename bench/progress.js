'use strict';

// What the run is doing, on standard error: one line that is rewritten on a terminal, and only the
// finished results elsewhere.

const INTERVAL_MS = 500;

class Progress {
  #total;
  #begun = 0;
  #now = '';
  #started = performance.now();
  #timer;

  /** `total` is how many measurements there will be. */
  constructor(total) {
    this.#total = total;
    if (!process.stderr.isTTY) return;
    this.#timer = setInterval(() => this.#draw(), INTERVAL_MS);
  }

  /** The next measurement begins, and the one before has ended. */
  begin(what) {
    this.#begun++;
    this.#now = what;
    this.#draw();
  }

  /** A line that stays. */
  say(line) {
    this.#clear();
    process.stderr.write(`${line}\n`);
  }

  end() {
    clearInterval(this.#timer);
    this.#clear();
  }

  #draw() {
    if (!this.#timer) return;
    const seconds = (performance.now() - this.#started) / 1000;
    const done = this.#begun - 1;
    const about = done > 0 ? `, about ${clock((seconds / done) * (this.#total - done))} left` : '';
    const line = `${this.#begun}/${this.#total} ${this.#now}  (${clock(seconds)}${about})`;
    this.#clear();
    process.stderr.write(line.slice(0, (process.stderr.columns || 80) - 1));
  }

  #clear() {
    if (this.#timer) process.stderr.write('\r\x1b[K');
  }
}

function clock(seconds) {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}

module.exports = { Progress };
