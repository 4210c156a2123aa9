/**
 * V8's limits for inlining. A packet passes some sixty functions, most of which only read or write a field
 * of a header. With the default limits V8 stops at a part of them, and each call costs as much as the work
 * in it. The limits only matter for code that is hot enough to be optimized.
 */

import { setFlagsFromString } from 'node:v8';

/** The sum of the bytecode that a function may inline; the default is 920. */
const CUMULATIVE = 5000;
/** The bytecode of a function that is inlined regardless of that sum; the default is 27. */
const SMALL = 60;

/** Sets the limits for all functions that are optimized from now on, in all threads. */
export function raiseInlining(): void {
  setFlagsFromString(`--max-inlined-bytecode-size-cumulative=${CUMULATIVE}`);
  setFlagsFromString(`--max-inlined-bytecode-size-small=${SMALL}`);
}
