// Mocha's settings. Mocha runs the files that tsc compiled. This is a script, not JSON, for two
// conditions: files named on the command line replace `spec` (mocha would add them to it), and
// `.only` is forbidden only in CI.
'use strict';

const filesNamed = process.argv.slice(2).some((arg) => /\.(js|mjs|cjs)$/.test(arg));
const { CI, TAPNIC_REQUIRE } = process.env;

// Set it here: with 'node-option', mocha would start a second node process.
process.setSourceMapsEnabled(true);

module.exports = {
  ...(filesNamed ? {} : { spec: ['dist/test/**/*.test.js'] }),
  reporter: './dist/test/support/reporter.js',
  timeout: 10_000,
  parallel: false,
  forbidOnly: CI !== undefined || TAPNIC_REQUIRE === '1',
};
