/**
 * The part of an interface that layers below src/net use: the name of a packet's receive interface.
 * `Ifnet` in src/net/if_var.ts implements this type.
 */
export interface IfnetRef {
  readonly if_xname: string;
}
