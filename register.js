'use strict';

// `node -r brood/register app.js` or `node --import brood/register app.js`.

require('./lib/register').install();
