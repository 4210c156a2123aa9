/** What a capture records. The control protocol reads it, and the machine acts on it. */

import type { BpfProgram } from '../sys/bpf_filter.ts';

/** A point of an interface, by name. */
interface PlaceSpec {
  /** CAPTURE_* number. */
  readonly point: number;
  /** The name of the interface or of its TAP; null: the first NIC. */
  readonly at: string | null;
}

/** What to record, and how. */
export interface RecordSpec {
  readonly places: readonly PlaceSpec[];
  readonly format: 'pcap' | 'pcapng';
  /** Bytes kept of a packet; default CAPTURE_SNAPLEN_MAX. */
  readonly snaplen?: number;
  /** A filter expression and the program of it. */
  readonly filter?: { readonly text: string; readonly program: BpfProgram };
  /** The private enterprise number of custom options; default that for documentation. */
  readonly pen?: number;
  /** Times with nanoseconds in classic pcap; pcapng has them always. */
  readonly nanoseconds?: boolean;
  readonly comment?: string;
  /** Packets after which the capture takes no more; default no limit. */
  readonly count?: number;
}
