/**
 * Loads the npm package tuntap2, which opens the TAP with `--driver tuntap2`. It is an optional
 * peer dependency and is loaded on demand.
 */

import { TapnicError } from '../sys/errno.ts';

/** The part of tuntap2's `Tap` that the adapter uses. Setters and the constructor throw strings. */
export interface Tuntap2Device {
  readonly name: string;
  isUp: boolean;
  mtu: number;
  ipv4: string;
  ipv6: string;
  /** Writes one frame; false means to wait for 'drain'. */
  write(frame: Uint8Array, done?: (error?: Error | null) => void): boolean;
  on(event: 'data', listener: (frame: Uint8Array) => void): unknown;
  on(event: 'drain' | 'close', listener: () => void): unknown;
  on(event: 'error', listener: (error: unknown) => void): unknown;
  pause(): unknown;
  resume(): unknown;
  release(done?: () => void): void;
}

interface Tuntap2Module {
  readonly Tap?: new () => Tuntap2Device;
  /** The exports of a CommonJS package whose names Node cannot detect. */
  readonly default?: { readonly Tap?: new () => Tuntap2Device };
}

const INSTALL = 'npm install tuntap2@^0.9.1';

async function load(): Promise<Tuntap2Module> {
  try {
    return await import('tuntap2');
  } catch (e) {
    const { code, message } = e as NodeJS.ErrnoException;
    // The package's own native part may be missing instead.
    const absent = code === 'ERR_MODULE_NOT_FOUND' && message.includes("'tuntap2'");
    throw new TapnicError(
      code ?? 'ERR_MODULE_NOT_FOUND',
      'tuntap2',
      absent
        ? `the optional package is not installed: ${INSTALL}`
        : `the package cannot be loaded (${message.split('\n')[0]}): ${INSTALL}`,
    );
  }
}

/** Converts a value that tuntap2 threw, usually a string, to an Error. */
export function tuntap2Error(thrown: unknown, what: string): TapnicError {
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  const code = (thrown as NodeJS.ErrnoException | null)?.code;
  return new TapnicError(typeof code === 'string' ? code : 'EIO', `tuntap2 ${what}`, text);
}

/** Loads the package and opens a TAP; the kernel chooses its name. Rejects with TapnicError. */
export async function openTuntap2(): Promise<Tuntap2Device> {
  const module = await load();
  const Tap = module.Tap ?? module.default?.Tap;
  if (typeof Tap !== 'function')
    throw new TapnicError('ERR_MODULE_NOT_FOUND', 'tuntap2', `exports no Tap: ${INSTALL}`);
  try {
    return new Tap();
  } catch (e) {
    throw tuntap2Error(e, 'open');
  }
}
