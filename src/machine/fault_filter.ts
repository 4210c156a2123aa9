/** The filter of a fault, compiled. */

import { checkedProgram, type FaultDraft, faultSpec } from '../fault/fault_spec.ts';
import type { FaultSpec } from '../fault/fault.ts';
import { compileFilterInsns } from '../host/pcap_filter.ts';
import type { BpfProgram } from '../sys/bpf_filter.ts';

/** Compiles the filter of a fault. Rejects with Error with a one-line message. */
export async function compiledFilter(text: string, signal?: AbortSignal): Promise<BpfProgram> {
  return checkedProgram(await compileFilterInsns(text, signal));
}

/** Compiles the filter of `draft`, if it has one. Rejects as `compiledFilter` does. */
export async function compiledFault(draft: FaultDraft): Promise<FaultSpec> {
  const { matchText } = draft;
  return faultSpec(draft, matchText === null ? null : await compiledFilter(matchText));
}
