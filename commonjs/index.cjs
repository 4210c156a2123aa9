/** `require('tapnic')`: the module that `import` loads, so that a program has it only once. */

'use strict';

module.exports = require('../dist/src/index.js');
