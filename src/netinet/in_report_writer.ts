/**
 * Writes the reports of IGMPv3 (RFC 3376, 4.2) and MLDv2 (RFC 3810, 5.2), which differ only in the type
 * and in the length of addresses, and reads what both protocols encode in the same way.
 */

import type { AddrWords } from '../sys/addr.ts';
import { type Mbuf, mtod } from '../kern/mbuf.ts';
import { mem } from '../vm/arena.ts';
import {
  CHANGE_TO_EXCLUDE_MODE,
  type GroupRecord,
  MODE_IS_EXCLUDE,
  PR_FASTHZ,
} from './in_report.ts';

/** Bytes of a report without records: type, 0, checksum (2), 0 (2), number of records (2). */
const HEAD_LEN = 8;
/** Bytes of a record before its group: type, 0, number of sources (2). */
const RECORD_HEAD = 4;
/** The most records of a report. */
const MAX_RECORDS = 65_535;

/** The format of a protocol's reports. */
export interface ReportFormat {
  readonly type: number;
  /** Bytes of an address. */
  readonly addrLen: number;
  /** Writes an address at offset `off`. */
  put(view: DataView, off: number, a: AddrWords): void;
}

/** Whether a record may continue in a second one; those that exclude are cut: RFC 3376, 4.2.16. */
function splits({ type }: GroupRecord): boolean {
  return type !== MODE_IS_EXCLUDE && type !== CHANGE_TO_EXCLUDE_MODE;
}

/** Collects records into reports of at most `room` bytes, and passes each to `send`. */
export class ReportWriter {
  readonly #format: ReportFormat;
  readonly #send: (report: Uint8Array) => void;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #len = HEAD_LEN;
  #records = 0;

  constructor(format: ReportFormat, room: number, send: (report: Uint8Array) => void) {
    this.#format = format;
    this.#send = send;
    this.#bytes = new Uint8Array(room);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Number of sources that still fit behind the head of a record; negative: not even the head. */
  get #room(): number {
    const { addrLen } = this.#format;
    if (this.#records === MAX_RECORDS) return -1;
    return Math.floor((this.#bytes.length - this.#len - RECORD_HEAD - addrLen) / addrLen);
  }

  /** Adds a record. One with too many sources continues in the next report, or is cut. */
  add(record: GroupRecord): void {
    const { length } = record.sources;
    if (!splits(record)) {
      if (this.#room < length) this.flush();
      this.#put(record, 0, Math.min(this.#room, length));
      return;
    }
    for (let at = 0; at < length || at === 0;) {
      if (this.#room < Math.min(1, length)) this.flush();
      const n = Math.min(this.#room, length - at);
      this.#put(record, at, n);
      at += Math.max(1, n);
    }
  }

  /** Writes a record with `n` sources, beginning with number `at`. */
  #put({ type, group, sources }: GroupRecord, at: number, n: number): void {
    const { addrLen } = this.#format;
    const off = this.#len;
    this.#bytes[off] = type;
    this.#bytes[off + 1] = 0;
    this.#view.setUint16(off + 2, n);
    this.#format.put(this.#view, off + RECORD_HEAD, group);
    let to = off + RECORD_HEAD + addrLen;
    for (let i = 0; i < n; i++, to += addrLen) this.#format.put(this.#view, to, sources[at + i]!);
    this.#len = to;
    this.#records++;
  }

  /** Sends the records that have been added. */
  flush(): void {
    if (this.#records === 0) return;
    const body = this.#bytes.slice(0, this.#len);
    body[0] = this.#format.type;
    body.fill(0, 1, HEAD_LEN);
    new DataView(body.buffer).setUint16(6, this.#records);
    this.#len = HEAD_LEN;
    this.#records = 0;
    this.#send(body);
  }
}

/** The value of a code of 8 bits, such as the querier's query interval: RFC 3376, 4.1.1 and 4.1.7. */
export function codeValue(code: number): number {
  return code < 128 ? code : ((code & 0xf) | 0x10) << (((code >>> 4) & 7) + 3);
}

/** Ticks of a time in units of 1/`scale` seconds, at least 1. */
export function ticksOf(time: number, scale: number): number {
  return Math.max(1, Math.floor((time * PR_FASTHZ) / scale));
}

/** A view of a copy of `n` bytes from offset `off` of the packet, which has them. */
export function readSources(m: Mbuf, off: number, n: number): DataView {
  const bytes = new Uint8Array(n);
  let at: Mbuf | null = m;
  for (let i = 0; i < n; i++) {
    while (at !== null && off >= at.m_len) {
      off -= at.m_len;
      at = at.m_next;
    }
    bytes[i] = mem[mtod(at!) + off++]!;
  }
  return new DataView(bytes.buffer);
}
