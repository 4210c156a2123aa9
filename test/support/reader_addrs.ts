/** The addresses of the readers and of the host under test. */

export const READER_ADDR = '192.0.2.1';
export const READER_MAC = '02:00:00:00:00:01';
export const HOST_ADDR = '192.0.2.2';
export const HOST_MAC = '02:00:00:00:00:02';
