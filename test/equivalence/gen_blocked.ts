/** Scripts that overwrite packets in memory while they wait for a full wire. Not random. */

import {
  TN_C_L3_SHIFT,
  TN_C_L4_SHIFT,
  TN_DESC_SIZE,
  TN_TDT,
  TN_TXD_CTX,
  TN_TXD_EOP,
  TN_TXD_IXSM,
  TN_TXD_TCP,
  TN_TXD_TXSM,
  TN_TXD_VLE,
} from '../../src/dev/tn/tnreg.ts';
import { makePacket } from '../dev/judge.ts';
import type { Setup, Step } from './bench.ts';
import { addrWords, bringUp, TX_RING } from './gen.ts';

const PACKETS = 60;
const DESCS = 256;
const AT = 0x30000;
/** Headers in the first piece; the rest of the packet is in the second. */
const CUT = 40;

/** One packet of every script: `payload` bytes behind 54 bytes of headers, with this context. */
function blockedScript(vnet: boolean, context: number, vle: number, payload: number): Script {
  const driver = { ntx: DESCS, nrx: 8, ctrl: 0, bufSize: 2048, frameMax: 1518, mask: 0, itr: 0 };
  const steps = bringUp({ ...driver, snaplen: 64, points: 0x18, meta: false });
  const bytes = makePacket({ payload, cksum: 'pseudo' });
  let tail = 0;
  const put = (...words: number[]): void => {
    steps.push({ do: 'words', at: TX_RING + tail++ * TN_DESC_SIZE, words });
  };
  steps.push({ do: 'bytes', at: AT, bytes });
  const lens = 14 | (20 << TN_C_L3_SHIFT) | (20 << TN_C_L4_SHIFT);
  for (let i = 0; i < PACKETS; i++) {
    if (context !== 0) put(lens, 1460, i, TN_TXD_CTX | context);
    put(...addrWords(AT), CUT, vle);
    put(...addrWords(AT + CUT), bytes.length - CUT, TN_TXD_EOP);
  }
  steps.push({ do: 'write', reg: TN_TDT, value: tail });
  for (let i = 0; i < PACKETS; i++) {
    steps.push({ do: 'bytes', at: AT, bytes: new Uint8Array(bytes.length).fill(i) });
    steps.push({ do: 'take', n: 1 });
  }
  return { setup: { vnet, timer: false, room: 1 }, steps };
}

interface Script {
  setup: Setup;
  steps: Step[];
}

/** Both modes, each checksum command, with and without a tag, small and larger packets. */
export function blockedScripts(): Script[] {
  const contexts = [0, TN_TXD_IXSM, TN_TXD_IXSM | TN_TXD_TXSM | TN_TXD_TCP];
  return [false, true].flatMap((vnet) =>
    contexts.flatMap((context) =>
      [0, TN_TXD_VLE].flatMap((vle) =>
        [0, 16, 194, 195, 198, 199, 1000].map((payload) =>
          blockedScript(vnet, context, vle, payload),
        ),
      ),
    ),
  );
}
