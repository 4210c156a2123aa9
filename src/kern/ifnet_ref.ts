/**
 * What the layers below src/net may know of an interface: that a packet came in by one. The real
 * thing is `Ifnet` in src/net/if_var.ts, which implements this.
 */
export interface IfnetRef {
  readonly if_xname: string;
}
