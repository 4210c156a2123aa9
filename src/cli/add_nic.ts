/** Parser of `--add-nic`: `nic1,nic=tn,mtu=9000,cap=-nomap,-txcsum`. */

import { numberOf } from '../machine/option_texts.ts';

/** A NIC as data; `checkOptions` checks the values. */
interface AddNic {
  tap: string;
  nic?: string;
  mac?: string;
  mtu?: number | string;
  cap: string[];
}

/** Throws Error if a key is unknown or given twice, or if the name is missing. */
export function parseAddNic(text: string): AddNic {
  const [tap = '', ...items] = text.split(',');
  if (tap === '') throw new Error(`${text}: the name of an interface is needed first`);
  const found: AddNic = { tap, cap: [] };
  let inCap = false;
  for (const item of items) {
    const eq = item.indexOf('=');
    const name = item.slice(0, eq < 0 ? item.length : eq);
    const value = item.slice(eq + 1);
    // A word without a key continues the list of capabilities.
    if ((eq < 0 && inCap) || (eq > 0 && name === 'cap')) {
      if (value !== '') found.cap.push(value);
      inCap = true;
      continue;
    }
    if (eq < 0 || (name !== 'nic' && name !== 'mac' && name !== 'mtu'))
      throw new Error(`${item}: one of nic=MODEL, mac=MAC, mtu=N, cap=LIST`);
    if (found[name] !== undefined) throw new Error(`${item}: ${name} is given twice`);
    if (name === 'mtu') found.mtu = numberOf(value);
    else found[name] = value;
    inCap = false;
  }
  return found;
}
