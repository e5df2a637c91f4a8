'use strict';

// The small message of all rows.

module.exports = { type: 'task', id: 12345, name: 'some name', values: [1, 2, 3], ok: true };
