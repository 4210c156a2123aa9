/**
 * The part of a PCB that most connections do not need: IP options, multicast, the cached route. A PCB
 * gets it when one of the fields first changes; until then all share one.
 */

import { Route } from '../net/route.ts';
import type { InMoptions } from './in_multi.ts';
import type { IpOptions } from './ip_options.ts';

/** Fields that differ from the defaults only if a program sets options. */
class InpcbCold {
  inp_ip_ttl = 64;
  inp_ip_tos = 0;
  /** The minimum TTL of accepted packets: IP_MINTTL. */
  inp_ip_minttl = 0;
  /** IP_OPTIONS: the options of each packet; null: no options. */
  inp_options: IpOptions | null = null;
  /** Multicast options and memberships; null: the defaults, and none. */
  inp_moptions: InMoptions | null = null;
  /** The options of IPv6, of netinet6's class In6pcb; null: the defaults. */
  inp_in6: object | null = null;
}

const noInpcbCold = new InpcbCold();

/** Access to the fields of InpcbCold as if they were fields of the PCB. */
export abstract class InpcbBase {
  #cold = noInpcbCold;
  #route: Route | null = null;

  #own(): InpcbCold {
    if (this.#cold === noInpcbCold) this.#cold = new InpcbCold();
    return this.#cold;
  }

  /** The route that ip_output caches between packets; made when one is first sent. */
  get inp_route(): Route {
    return (this.#route ??= new Route());
  }

  /** Empties the cached route. */
  dropRoute(): void {
    if (this.#route !== null) this.#route.ro_nh = null;
  }

  get inp_ip_ttl(): number {
    return this.#cold.inp_ip_ttl;
  }
  set inp_ip_ttl(v: number) {
    if (v !== this.#cold.inp_ip_ttl) this.#own().inp_ip_ttl = v;
  }

  get inp_ip_tos(): number {
    return this.#cold.inp_ip_tos;
  }
  set inp_ip_tos(v: number) {
    if (v !== this.#cold.inp_ip_tos) this.#own().inp_ip_tos = v;
  }

  get inp_ip_minttl(): number {
    return this.#cold.inp_ip_minttl;
  }
  set inp_ip_minttl(v: number) {
    if (v !== this.#cold.inp_ip_minttl) this.#own().inp_ip_minttl = v;
  }

  get inp_options(): IpOptions | null {
    return this.#cold.inp_options;
  }
  set inp_options(v: IpOptions | null) {
    if (v !== this.#cold.inp_options) this.#own().inp_options = v;
  }

  get inp_moptions(): InMoptions | null {
    return this.#cold.inp_moptions;
  }
  set inp_moptions(v: InMoptions | null) {
    if (v !== this.#cold.inp_moptions) this.#own().inp_moptions = v;
  }

  get inp_in6(): object | null {
    return this.#cold.inp_in6;
  }
  set inp_in6(v: object | null) {
    if (v !== this.#cold.inp_in6) this.#own().inp_in6 = v;
  }
}
