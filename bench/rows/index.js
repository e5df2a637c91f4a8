'use strict';

// The rows of the table, in its order.

module.exports = [...require('./spawn'), ...require('./messages'), ...require('./startup')];
