/**
 * A peer's address for the log: `192.0.2.1:40000`, `[2001:db8::1]:40000`. A server for both families gets
 * an IPv4 address as `::ffff:192.0.2.1`.
 */
export function peerText(address: string | undefined, port: number | undefined): string {
  const plain = address?.replace(/^::ffff:(?=[\d.]+$)/, '');
  return plain?.includes(':') === true ? `[${plain}]:${port}` : `${plain}:${port}`;
}
