/**
 * What the process removes from the system if it ends without a stop: after a second signal, an
 * uncaught exception, or `process.exit()` in a program.
 */

const pending: (() => void)[] = [];

function run(): void {
  for (const undo of pending.splice(0).toReversed())
    try {
      undo();
    } catch {
      // The next one may still succeed, and no one reads an error now.
    }
}

/**
 * Runs `undo` when the process ends, the last one first. It must be synchronous and short. Returns a
 * function that cancels this.
 */
export function atExit(undo: () => void): () => void {
  if (pending.length === 0) process.once('exit', run);
  pending.push(undo);
  return () => {
    const i = pending.indexOf(undo);
    if (i >= 0) pending.splice(i, 1);
    if (pending.length === 0) process.off('exit', run);
  };
}
