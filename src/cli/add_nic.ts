/** The text of `--add-nic`: `nic1,nic=tn,mtu=9000,cap=-nomap,-txcsum`, taken apart. */

/** What it says, as texts; null for what it leaves out. */
export interface AddNicTexts {
  readonly tap: string;
  readonly nic: string | null;
  readonly mac: string | null;
  readonly mtu: string | null;
  /** A comma list, as `--cap` has it. */
  readonly cap: string;
}

const KEYS = ['nic', 'mac', 'mtu'] as const;

/** Throws Error: an unknown key, one given twice, or no name. */
export function parseAddNic(text: string): AddNicTexts {
  const [tap = '', ...items] = text.split(',');
  if (tap === '') throw new Error(`${text}: the name of an interface is needed first`);
  const found: Record<(typeof KEYS)[number], string | null> = { nic: null, mac: null, mtu: null };
  const caps: string[] = [];
  let inCap = false;
  for (const item of items) {
    const eq = item.indexOf('=');
    const name = item.slice(0, eq < 0 ? item.length : eq);
    const value = item.slice(eq + 1);
    const key = KEYS.find((one) => one === name);
    // A word without a key goes on with the list of capabilities.
    if (eq < 0 && inCap) caps.push(item);
    else if (eq > 0 && name === 'cap') caps.push(value);
    else if (eq < 0 || key === undefined)
      throw new Error(`${item}: one of nic=MODEL, mac=MAC, mtu=N, cap=LIST`);
    else if (found[key] !== null) throw new Error(`${item}: ${name} is given twice`);
    else found[key] = value;
    inCap = eq < 0 ? inCap : name === 'cap';
  }
  return { tap, ...found, cap: caps.join(',') };
}
