#!/usr/bin/env node
// Prints the podman arguments, one a line, that run a service of a Compose file:
//
//   node scripts/image/service.mjs FILE SERVICE PREFIX IMAGE
//
// Containers are named PREFIX-SERVICE. It translates the keys that examples/ci/compose.yaml has and
// fails for any other, so that no key is ignored. `depends_on` is the caller's: start the services in
// that order, each when the one before is healthy.
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parse } from 'yaml';

const [file, name, prefix, image] = process.argv.slice(2);
const service = parse(readFileSync(file, 'utf8')).services[name];
const each = (flag, values) => values.map((value) => `--${flag}=${value}`);
const network = (mode) => mode.replace(/^service:(.*)$/, `container:${prefix}-$1`);
const options = {
  image: () => [],
  command: () => [],
  depends_on: () => [],
  entrypoint: (words) => [`--entrypoint=${JSON.stringify(words)}`],
  network_mode: (mode) => [`--network=${network(mode)}`],
  cap_drop: (names) => each('cap-drop', names),
  cap_add: (names) => each('cap-add', names),
  devices: (paths) => each('device', paths),
  volumes: (texts) =>
    texts.map((text) => {
      const [from, to] = text.split(':');
      return `--volume=${resolve(dirname(file), from)}:${to}`;
    }),
  healthcheck: ({ test: [kind, ...words] }) => {
    if (kind !== 'CMD') throw new Error(`healthcheck: ${kind} is not translated`);
    return [`--health-cmd=${JSON.stringify(words)}`, '--health-interval=disable'];
  },
};
const args = Object.entries(service).flatMap(([key, value]) => {
  if (!Object.hasOwn(options, key)) throw new Error(`${name}: ${key} is not translated`);
  return options[key](value);
});
console.log([`--name=${prefix}-${name}`, ...args, image, ...(service.command ?? [])].join('\n'));
