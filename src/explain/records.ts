/** The packets of a capture file with their numbers, points and metadata. */

import { capturePoints } from '../sys/capture.ts';
import { decodeMeta } from '../pcap/meta.ts';
import { CaptureFormatError, type FileItem } from '../pcap/read.ts';
import { frameHead, type FrameHead } from './headers.ts';

type FileInterface = Extract<FileItem, { kind: 'interface' }>;
type FilePacket = Extract<FileItem, { kind: 'packet' }>;
export type Metadata = ReturnType<typeof decodeMeta>;

/** An interface of a file: for our files a point of an interface. */
export interface Place {
  readonly index: number;
  readonly name: string;
  /** The interface without its point. */
  readonly ifname: string;
  /** A capture point; empty in files of other programs. */
  readonly point: string;
  readonly linktype: number;
  readonly mac: Uint8Array | null;
  readonly snaplen: number;
  readonly filter: string;
}

/** One packet of a file. */
export interface PacketRecord {
  /** As tshark counts: 1 for the first packet. */
  readonly number: number;
  readonly place: Place;
  readonly packet: FilePacket;
  readonly direction: 'out' | 'in' | 'unknown';
  readonly id: number;
}

const EMPTY_META: Metadata = decodeMeta(new Uint8Array(0));

/** Points of FilePacket.flags: the two lowest bits are 1 for received and 2 for sent packets. */
const FLAG_DIRECTIONS = ['unknown', 'in', 'out', 'unknown'] as const;

/** `IF@POINT` is the name that our captures give. */
function placeOf(i: FileInterface): Place {
  const { index, linktype, mac, snaplen, filter } = i;
  const at = i.name.lastIndexOf('@');
  const point = at < 0 ? '' : i.name.slice(at + 1);
  const ours = (capturePoints as readonly string[]).includes(point);
  const name = i.name === '' ? `interface ${index}` : i.name;
  const ifname = ours ? i.name.slice(0, at) : name;
  return { index, name, ifname, point: ours ? point : '', linktype, mac, snaplen, filter };
}

/** Numbers the packets of a file and finds their places. */
export class Numbering {
  readonly places: Place[] = [];
  packets = 0;

  /** Takes an interface. */
  addInterface(i: FileInterface): Place {
    const place = placeOf(i);
    this.places.push(place);
    return place;
  }

  packet(packet: FilePacket): PacketRecord {
    const place = this.places[packet.iface]!;
    const direction = FLAG_DIRECTIONS[packet.flags & 3]!;
    return { number: ++this.packets, place, packet, direction, id: packet.id };
  }
}

/**
 * Decodes metadata; the offset of the record is that of the error.
 * @param meta null: none
 */
export function metaOf(offset: number, meta: Uint8Array | null): Metadata {
  if (meta === null) return EMPTY_META;
  try {
    return decodeMeta(meta);
  } catch (e) {
    throw new CaptureFormatError(offset, (e as Error).message);
  }
}

/** The headers of a packet. */
export function headOf({ place, packet }: PacketRecord): FrameHead {
  return frameHead(place.linktype, packet.bytes, packet.wirelen);
}
