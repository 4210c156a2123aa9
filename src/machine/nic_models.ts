/** The list of NIC models. A new model is a module in models/ and a line here. */

import { tbModel } from './models/tb.ts';
import { tlModel } from './models/tl.ts';
import { tnModel } from './models/tn.ts';
import { tpModel } from './models/tp.ts';
import type { NicModel } from './nic_model.ts';

/** All models, the default first. */
export const nicModels: readonly NicModel[] = [tnModel, tbModel, tlModel, tpModel];

/** The model `name`, or null. */
export function nicModel(name: string): NicModel | null {
  return nicModels.find((model) => model.name === name) ?? null;
}
