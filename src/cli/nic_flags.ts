/**
 * Names and help of the options of every command that brings up a NIC. nic_options.ts parses them.
 */

import type { Command } from 'commander';

/** One option. Its name is also the key in a --config file. */
interface NicFlag {
  readonly name: string;
  /** Name of the value in the help; empty for a switch, whose text is `true` or `false`. */
  readonly value: string;
  readonly descr: string;
  /** May be given more than once. */
  readonly repeat: boolean;
}

const flag = (name: string, value: string, descr: string, repeat = false): NicFlag => ({
  name,
  value,
  descr,
  repeat,
});

export const NIC_FLAGS: readonly NicFlag[] = [
  flag('tap', 'name', "Linux side's interface (default: nic0)"),
  flag('host-addr', 'cidr', "Linux side's IPv4 address, or none (default: 192.0.2.1/24)"),
  flag('host-addr6', 'cidr', "Linux side's IPv6 address, or none (default: 2001:db8::1/64)"),
  flag('addr', 'cidr', "the emulated host's IPv4 address, or dhcp (default: 192.0.2.2/24)"),
  flag(
    'addr6',
    'cidr',
    "the emulated host's IPv6 address, auto (router advertisements) or none (default: 2001:db8::2/64)",
  ),
  flag(
    'gateway',
    'addr',
    "the emulated host's default route, or none (default: the host address, or DHCP's router)",
  ),
  flag(
    'gateway6',
    'addr',
    "the emulated host's IPv6 default route, or none (default: the host address, or the router)",
  ),
  flag('mac', 'mac', "the NIC's address (default: stable for the interface name)"),
  flag('mtu', 'n', 'largest IP packet, in bytes (default: 1500)'),
  flag('nic', 'model', 'NIC model, see `tapnic nics` (default: tn)'),
  flag('cap', 'list', "capabilities in ifconfig's words, such as --cap=-nomap,-txcsum"),
  flag(
    'mode',
    'mode',
    'wire: checksums and segmentation in the NIC; vnet: in Linux (default: wire)',
  ),
  flag('napi', 'how', 'off, thread (default: off)'),
  flag('engine', 'build', 'build of the device: native, ts (default: native)'),
  flag('driver', 'name', 'what opens the TAP: native, tuntap2 (default: native)'),
  flag('netns', 'name', 'network namespace of the TAP, created if it is missing'),
  flag(
    'add-nic',
    'tap,...',
    'an additional NIC: TAP[,nic=MODEL][,mac=MAC][,mtu=N][,cap=LIST], without address; repeatable',
    true,
  ),
  flag(
    'capture',
    'point=file',
    'write the frames at capture points to a .pcap or .pcapng file (.gz: compressed); repeatable',
    true,
  ),
  flag(
    'control',
    'path',
    'control socket (default: /run/tapnic/INODE.TAP.sock, with the inode of the network namespace)',
  ),
  flag('sysctl', 'name=value', 'set a sysctl at the start; repeatable', true),
  flag('fault', 'kind,name=value', 'a fault on the wire, see `fault add --help`; repeatable', true),
  flag('memory', 'size', 'memory of the machine, 16M to 4096M (default: 256M)'),
  flag('phys-base', 'addr', 'physical address of the first byte of memory (default: 0)'),
  flag(
    'iommu',
    '',
    'the NIC can access only memory that its driver has loaded; needs the ts build',
  ),
  flag('dma-check', '', "check the driver's bus_dma calls; needs the ts build"),
  flag('seed', 'n', 'seed of every random choice (default: random)'),
];

/** Returns the StackConfig name of a flag: `hostAddr` for `host-addr`, `ports` for `add-nic`. */
export function optionOf(flagName: string): string {
  return flagName === 'add-nic' ? 'ports' : flagKey(flagName);
}

/** Returns the flag of a StackConfig option. */
export function flagOf(option: string): string {
  return NIC_FLAGS.find(({ name }) => optionOf(name) === option)?.name ?? option;
}

/** Raw option texts as commander collects them, under camel-case names. */
export type RawFlags = Record<string, string | string[] | boolean | undefined>;

/** A command's own options by name, each with its origin: `--port`, or `FILE:LINE:COLUMN`. */
export type OwnTexts = Record<string, { readonly text: string; readonly where: string }>;

/** Returns commander's property name of a flag: `hostAddr` for `host-addr`. */
export function flagKey(name: string): string {
  return name.replace(/-([a-z0-9])/g, (_all, c: string) => c.toUpperCase());
}

export function addNicFlags(command: Command): Command {
  for (const { name, value, descr, repeat } of NIC_FLAGS) {
    const flags = value === '' ? `--${name}` : `--${name} <${value}>`;
    if (repeat)
      command.option(flags, descr, (text: string, before: string[] | undefined) => [
        ...(before ?? []),
        text,
      ]);
    else command.option(flags, descr);
  }
  return command
    .option('--config <file>', 'YAML file with these options; the command line wins')
    .option('--json', 'print JSON');
}
