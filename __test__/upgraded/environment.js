'use strict';
// Skips, in an upgraded run, the tests that are about processes without brood: their names, each
// with its reason. A name that no test has any more fails its file.

const path = require('node:path');
const { TestEnvironment } = require('jest-environment-node');

const TESTS = path.resolve(__dirname, '..');

const STOCK_CHILD = 'its child must be stock Node';
const TAKEOVER = 'brood has taken the channel over before the test can ask for it';
const UNREGISTERED = 'compares with a process in which brood is not registered';

const SKIPPED = {
  'child_process/permission.test.js': {
    'with the permission the flags travel to children in NODE_OPTIONS':
      'expects nothing else in NODE_OPTIONS',
  },
  'child_process/public_face.test.js': {
    'cluster is loaded only when it is asked for': UNREGISTERED,
  },
  'cluster/api.test.js': {
    'without register the built-in cluster stays as it is': UNREGISTERED,
  },
  'cluster/beyond_node.test.js': {
    'stock workers: stats() says what the primary can know': STOCK_CHILD,
  },
  'cluster/lanes_of_workers.test.js': {
    'a lane is for workers with brood, by register or by require': STOCK_CHILD,
    'a worker that loads brood after its server listens stays as stock': STOCK_CHILD,
  },
  'cluster/shared_channel.test.js': {
    'serialization json: a connection that is declined is served by another worker': STOCK_CHILD,
    'serialization advanced: a connection that is declined is served by another worker':
      STOCK_CHILD,
    'serialization json: what a worker has written comes before the end of its process':
      STOCK_CHILD,
    'serialization advanced: what a worker has written comes before the end of its process':
      STOCK_CHILD,
  },
  'cluster/stalls.test.js': {
    'stock workers: all but the one that is on its way go elsewhere': STOCK_CHILD,
  },
  'ipc/takeover.test.js': {
    'json 20 000 messages keep their order through a takeover in their middle': TAKEOVER,
    'json the part of a message that Node has read before is not lost': TAKEOVER,
    'json messages that came before anybody listened survive the takeover': TAKEOVER,
    'advanced 20 000 messages keep their order through a takeover in their middle': TAKEOVER,
    'advanced the part of a message that Node has read before is not lost': TAKEOVER,
    'advanced messages that came before anybody listened survive the takeover': TAKEOVER,
    'a handle that Node has read in the same turn still arrives after the takeover': TAKEOVER,
    'a reference taken or given up before the takeover stays as it is': TAKEOVER,
  },
  'ipc/upgrade.test.js': {
    "Node's protocol stays for a stock child, which keeps the variable and answers nothing":
      STOCK_CHILD,
    "Node's protocol stays for a grandchild whose parent is stock and has inherited the offer":
      STOCK_CHILD,
  },
  'register.test.js': {
    '-r gives brood to require, with and without node:': UNREGISTERED,
    '-r gives brood to import, default and named, with and without node:': UNREGISTERED,
    '--import gives brood to require, with and without node:': UNREGISTERED,
    '--import gives brood to import, default and named, with and without node:': UNREGISTERED,
    'NODE_OPTIONS reaches grandchildren, -r the children that fork() makes': UNREGISTERED,
    'children made before and after are instances of both classes': UNREGISTERED,
    "a child's module stays stock when both only require brood; its channel, which it offers, becomes brood's":
      UNREGISTERED,
    "a child's module stays stock when both only require brood; so does its channel without an offer":
      UNREGISTERED,
    'adoptChannel() gives a child the channel of brood, once': TAKEOVER,
    'stock Node stays in place, and one line under NODE_DEBUG=brood says why, when the addon is missing':
      'the whole brood is registered before the one that lacks its addon',
  },
};

function fullName(test) {
  const names = [];
  for (let at = test; at.parent !== undefined; at = at.parent) names.unshift(at.name);
  return names.join(' ');
}

class UpgradedEnvironment extends TestEnvironment {
  #skipped;
  #met = new Set();

  constructor(config, context) {
    super(config, context);
    const skipped = SKIPPED[path.relative(TESTS, context.testPath)] ?? {};
    this.#skipped = new Map(Object.entries(skipped));
  }

  handleTestEvent({ name, test }) {
    if (name === 'run_finish') this.#failOnStale();
    if (name !== 'test_start' || !this.#skipped.has(fullName(test))) return;
    this.#met.add(fullName(test));
    test.mode = 'skip';
  }

  #failOnStale() {
    const stale = [...this.#skipped.keys()].filter((name) => !this.#met.has(name));
    if (stale.length > 0) throw new Error(`no such test: ${stale.join(', ')}`);
  }
}

module.exports = UpgradedEnvironment;
