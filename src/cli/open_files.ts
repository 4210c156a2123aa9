/** Recognizes that too few files may be open. */

/** Node opens some 150 modules of a command at the same time. */
const NEEDED = 256;

/** The limit of open files of this process; Infinity if it cannot be read. */
function openFilesMax(): number {
  // Node's report reads it by getrlimit(2), which needs no descriptor.
  const report = process.report.getReport() as unknown as {
    userLimits?: { open_files?: { soft?: unknown } };
  };
  const soft = report.userLimits?.open_files?.soft;
  return typeof soft === 'number' ? soft : Infinity;
}

/**
 * Returns a line about the limit of open files if an error of Node comes from it, else null. While
 * no file can be opened, Node's loader reports that a package does not exist.
 */
export function openFilesText(e: unknown): string | null {
  const { code } = e as NodeJS.ErrnoException;
  if (code !== 'EMFILE' && code !== 'ERR_MODULE_NOT_FOUND') return null;
  const max = openFilesMax();
  if (max >= NEEDED) return null;
  return `EMFILE: at most ${max} files may be open: raise the limit to ${NEEDED} or more (ulimit -n)`;
}
