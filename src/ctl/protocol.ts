/**
 * The protocol of the control socket: one JSON object per line in each direction. A request is
 * `{"id":1,"cmd":"netstat","args":{"report":"m"}}`; its answer carries the same id and either
 * `"ok":true` with `data` or `"ok":false` with `err`. Answers come in the order of the requests.
 *
 * `ping`, `fetch` and `capture` are streamed. Lines with the id of the request precede the answer: either
 * `{"id":1,"event":{...}}` or `{"id":1,"bytes":N}` with N bytes of a body after it. Answers to other
 * requests may be between them. `{"id":2,"cmd":"stop","args":{"id":1}}` stops request 1, whose answer
 * follows; the end of the client's side cancels it. A client can have one streamed request.
 */

/** Maximum bytes of a request line, without its line feed. A longer line ends the connection. */
export const REQUEST_MAX = 64 * 1024;
/**
 * Maximum bytes of an answer line that a client accepts: enough for tens of thousands of
 * connections.
 */
export const RESPONSE_MAX = 64 * 1024 * 1024;

/** The message of EAGAIN while an instance has no address yet. */
export const STARTING = 'starting: try again';

/** A request as received; request.ts parses its arguments. */
export interface ControlRequest {
  readonly id: number;
  readonly cmd: string;
  readonly args: Readonly<Record<string, unknown>>;
}

interface ControlError {
  /** A symbolic errno such as `EINVAL`. */
  readonly code: string;
  /** One line, for people. */
  readonly message: string;
  /** The call that failed, as in Node's errors. */
  readonly syscall?: string;
}

/** `id` is null if the request has no readable id. */
export type ControlResponse =
  | { readonly id: number | null; readonly ok: true; readonly data: unknown }
  | { readonly id: number | null; readonly ok: false; readonly err: ControlError };

/** Thrown by a command that failed. It becomes the answer's `err`. */
export class ControlFailure extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/**
 * Returns the error answer for what a command threw. Code and system call of a TapnicError or of an
 * error of Node are kept; an error without a code is EIO.
 */
export function failureResponse(id: number | null, e: unknown): ControlResponse {
  if (!(e instanceof Error)) return errResponse(id, 'EIO', String(e));
  const { code, syscall } = e as NodeJS.ErrnoException;
  return errResponse(id, typeof code === 'string' ? code : 'EIO', e.message, syscall);
}

export function okResponse(id: number | null, data: unknown): ControlResponse {
  return { id, ok: true, data };
}

export function errResponse(
  id: number | null,
  code: string,
  message: string,
  syscall?: string,
): ControlResponse {
  const err = { code, message, ...(syscall === undefined ? {} : { syscall }) };
  return { id, ok: false, err };
}

/** Returns a line with an event of a streamed request. */
export function eventLine(id: number, event: object): object {
  return { id, event };
}

/** Returns the line that precedes `bytes` bytes of a body. */
export function bodyHead(id: number, bytes: number): string {
  return `${JSON.stringify({ id, bytes })}\n`;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Parses a request line. Throws ControlFailure (EINVAL) if it is invalid. */
export function parseRequest(line: string): ControlRequest {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new ControlFailure('EINVAL', 'not a line of JSON');
  }
  if (!isObject(value)) throw new ControlFailure('EINVAL', 'not a JSON object');
  const { id, cmd, args } = value;
  if (typeof id !== 'number' || !Number.isSafeInteger(id))
    throw new ControlFailure('EINVAL', 'id: not a whole number');
  if (typeof cmd !== 'string') throw new ControlFailure('EINVAL', 'cmd: not a string');
  if (args !== undefined && !isObject(args))
    throw new ControlFailure('EINVAL', 'args: not an object');
  return { id, cmd, args: args ?? {} };
}

/** A line that a client receives. */
export type ControlLine =
  | { readonly kind: 'answer'; readonly answer: ControlResponse }
  | { readonly kind: 'event'; readonly event: Readonly<Record<string, unknown>> }
  | { readonly kind: 'body'; readonly bytes: number };

/** Parses a line of an instance. Throws ControlFailure (EPROTO) if it is invalid. */
export function parseLine(line: string): ControlLine {
  const bad = new ControlFailure('EPROTO', 'the answer is not one of a tapnic instance');
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw bad;
  }
  if (!isObject(value)) throw bad;
  const { id, ok, data, err, event, bytes } = value;
  if (id !== null && typeof id !== 'number') throw bad;
  if (ok === true) return { kind: 'answer', answer: okResponse(id, data) };
  if (isObject(event)) return { kind: 'event', event };
  if (typeof bytes === 'number' && Number.isSafeInteger(bytes) && bytes > 0)
    return { kind: 'body', bytes };
  if (!isObject(err) || typeof err['code'] !== 'string' || typeof err['message'] !== 'string')
    throw bad;
  const syscall = typeof err['syscall'] === 'string' ? err['syscall'] : undefined;
  return { kind: 'answer', answer: errResponse(id, err['code'], err['message'], syscall) };
}
