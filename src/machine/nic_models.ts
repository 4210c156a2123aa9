/** The NIC models there are. A new one is a module in models/ and a line here. */

import { tbModel } from './models/tb.ts';
import { tlModel } from './models/tl.ts';
import { tnModel } from './models/tn.ts';
import { tpModel } from './models/tp.ts';
import type { NicModel } from './nic_model.ts';

/** The default first. */
export const nicModels: readonly NicModel[] = [tnModel, tbModel, tlModel, tpModel];

/** The model of that name; null if there is none. */
export function nicModel(name: string): NicModel | null {
  return nicModels.find((model) => model.name === name) ?? null;
}
