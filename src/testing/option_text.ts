/** TCP options as tcpdump prints them. */

const KIND_EOL = 0;
const KIND_NOP = 1;
const KIND_MSS = 2;
const KIND_WSCALE = 3;
const KIND_SACK_OK = 4;
const KIND_SACK = 5;
const KIND_TIMESTAMP = 8;
const KIND_FAST_OPEN = 34;

function hex(b: Uint8Array): string {
  return Buffer.from(b).toString('hex');
}

/** @param relative makes an acknowledged sequence number relative */
function optionText(
  kind: number,
  view: DataView,
  body: Uint8Array,
  relative: (seq: number) => number,
): string {
  const n = body.length;
  if (kind === KIND_MSS && n === 2) return `mss ${view.getUint16(0)}`;
  if (kind === KIND_WSCALE && n === 1) return `wscale ${body[0]}`;
  if (kind === KIND_SACK_OK && n === 0) return 'sackOK';
  if (kind === KIND_TIMESTAMP && n === 8)
    return `TS val ${view.getUint32(0)} ecr ${view.getUint32(4)}`;
  if (kind === KIND_SACK && n % 8 === 0) {
    const blocks = Array.from({ length: n / 8 }, (_, i) => {
      const [from, to] = [view.getUint32(8 * i), view.getUint32(8 * i + 4)];
      return `{${relative(from)}:${relative(to)}}`;
    });
    return `sack ${blocks.length} ${blocks.join('')}`;
  }
  if (kind === KIND_FAST_OPEN) return n === 0 ? 'tfo  cookiereq' : `tfo  cookie ${hex(body)}`;
  return n === 0 ? `unknown-${kind}` : `unknown-${kind} 0x${hex(body)}`;
}

/** The options in `bytes`, in order; the last one says so if the bytes end early. */
export function optionTexts(bytes: Uint8Array, relative: (seq: number) => number): string[] {
  const texts: string[] = [];
  for (let at = 0; at < bytes.length;) {
    const kind = bytes[at]!;
    if (kind === KIND_EOL) {
      texts.push('eol');
      break;
    }
    if (kind === KIND_NOP) {
      texts.push('nop');
      at++;
      continue;
    }
    const length = bytes[at + 1] ?? 0;
    if (length < 2 || at + length > bytes.length) {
      texts.push('[bad opt]');
      break;
    }
    const body = bytes.subarray(at + 2, at + length);
    const view = new DataView(body.buffer, body.byteOffset, body.length);
    texts.push(optionText(kind, view, body, relative));
    at += length;
  }
  return texts;
}
