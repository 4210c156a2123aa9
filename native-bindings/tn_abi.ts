/**
 * The numbers of the interface between the addon and TypeScript: its version, and those of the native
 * build of the NIC `tn` (src/tn_napi.cpp) and the code that calls it (src/host/native_tn.ts). The C++
 * header is generated from this file (scripts/gen_tnreg.ts).
 */

// The version of the interface. Change it when a function of the addon or a number here changes:
// loadAddon refuses an addon with another value, which was built from other sources.
export const ADDON_ABI = 9;

// Flags: what the caller must do after tnWrite or tnEvent
export const TN_DO_POST_TX = 0x1; // send TN_EV_TX on the next turn
export const TN_DO_POST_RX = 0x2; // send TN_EV_RX on the next turn
export const TN_DO_ARM = 0x4; // send one TN_EV_WRITABLE when the wire has room
export const TN_DO_READ_ON = 0x8; // send TN_EV_READABLE from now on
export const TN_DO_READ_OFF = 0x10; // stop sending TN_EV_READABLE
export const TN_DO_INTR = 0x20; // raise the interrupt line
export const TN_DO_TIMER = 0x40; // send TN_EV_TIMER at the time that tnTimer returns
export const TN_DO_CAPTURED = 0x80; // drain the capture ring
export const TN_DO_REASONS = 0x100; // fetch the reasons with tnReasons

// Events, for tnEvent
export const TN_EV_READABLE = 0; // frames wait on the wire
export const TN_EV_WRITABLE = 1; // the wire has room
export const TN_EV_LINK_UP = 2;
export const TN_EV_LINK_DOWN = 3;
export const TN_EV_TX = 4; // the turn that TN_DO_POST_TX requested
export const TN_EV_RX = 5; // the turn that TN_DO_POST_RX requested
export const TN_EV_TIMER = 6; // the time that TN_DO_TIMER requested
export const TN_EV_RESET = 7; // as TN_CTRL.RST: the device is being unplugged
export const TN_EV_COUNT = 8;

// Indices of tnOpen's `params`
export const TN_P_VNET = 0; // 1: mode `vnet`
export const TN_P_HAS_TIMER = 1; // 1: TN_ITR works
export const TN_P_RAM_BASE = 2; // bus address of the arena's first byte
export const TN_P_RAM_BYTES = 3; // bytes of RAM, starting there
export const TN_P_CAPTURE_OFF = 4; // arena offset of the capture ring
export const TN_P_CAPTURE_BYTES = 5; // its size; 0: no capture ring
export const TN_P_CAPTURE_UNIT = 6; // interface number in its records
export const TN_P_NOW = 7; // the machine's time, ns
export const TN_P_OWN_TIME = 8; // 1: time comes only from tnTime; 0: it follows CLOCK_MONOTONIC
export const TN_P_REASONS = 9; // first of the machine's numbers of the device's reasons
export const TN_P_COUNT = 22;
