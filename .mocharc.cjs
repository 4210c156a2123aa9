// Mocha's settings: mocha runs what tsc compiled. A script and not JSON for two conditions: mocha
// adds the files named on its command line to `spec` instead of putting them in its place, and
// `.only` is forbidden in CI alone.
'use strict';

const filesNamed = process.argv.slice(2).some((arg) => /\.(js|mjs|cjs)$/.test(arg));
const { CI, TAPNIC_REQUIRE } = process.env;

// Not by 'node-option': mocha would start a second node for it.
process.setSourceMapsEnabled(true);

module.exports = {
  ...(filesNamed ? {} : { spec: ['dist/test/**/*.test.js'] }),
  reporter: './dist/test/support/reporter.js',
  timeout: 10_000,
  parallel: false,
  forbidOnly: CI !== undefined || TAPNIC_REQUIRE === '1',
};
