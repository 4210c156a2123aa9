/**
 * The interface to a directory whose files are looked up and read without ever blocking the event
 * loop. src/host implements it.
 */

/** The result of a look-up. */
export interface LookedUp {
  /** null, or the name of a Linux errno; ETIMEDOUT if the file system did not answer in time. */
  readonly code: string | null;
  readonly kind: 'file' | 'directory' | 'other';
  /** Open for reading, to be closed with `close`; -1 for 'other', an error or an unopened directory. */
  readonly fd: number;
  readonly size: number;
  readonly mtimeMs: number;
  /** The real path, one character for each byte. */
  readonly path: string;
}

/** What a name referred to: the file's identity, size and times, which change with its contents. */
export interface FileStamp {
  readonly path: Uint8Array;
  readonly stat: Float64Array;
}

/** Some entries of a directory. */
export interface Entries {
  /** As in `LookedUp`. */
  readonly code: string | null;
  /**
   * For each entry: its kind, the length of its name, 1 to 255, and the name. Kind 0: a file. 1: a
   * directory. 2: `lookup` would refuse it or not find it. A link has the kind of what it names.
   */
  readonly bytes: Buffer;
  /** There are no more entries. */
  readonly end: boolean;
}

export interface Folder {
  /**
   * Looks `name` up, relative to the directory. Nothing outside the directory is found (EACCES), and
   * nothing but regular files, and with `openDir` directories, is opened. @param name no NUL in it
   */
  lookup(name: Buffer, openDir: boolean): Promise<LookedUp>;
  /**
   * The stamp of the file `fd`, which `lookup` has just opened by `name`; null if `unchanged` could not
   * decide without a thread: another file system, or a link on the way.
   */
  stamp(name: Buffer, fd: number): FileStamp | null;
  /** Whether the name certainly still refers to that file, unchanged. Waits for no disk or network. */
  unchanged(stamp: FileStamp): boolean;
  /** Reads the next entries of a directory that `lookup` opened. */
  readDir(fd: number): Promise<Entries>;
  /** Closes a descriptor that `lookup` opened. */
  close(fd: number): void;
}
