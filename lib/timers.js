'use strict';
// Node's timers as they were when brood was loaded: a program's own, such as those that a test has
// put in their place, may never fire.

const { clearInterval, clearTimeout, setInterval, setTimeout } = require('node:timers');

module.exports = { clearInterval, clearTimeout, setInterval, setTimeout };
