/**
 * The classes of sockets and servers for programs, whose modules are loaded later, with the first stack:
 * programs without a stack start faster. They may be extended before they are loaded.
 */

import { invalidArgType } from './node_errors.ts';
import type { Server } from './server.ts';
import type { Socket } from './socket.ts';

/** A constructor. */
type Class = abstract new (...args: never[]) => object;

/** A class, and what sets it when its module is loaded. */
interface LateClass<C extends Class> {
  readonly type: C;
  loaded(real: C): void;
}

/** @param missing the error of `new` while the class is not loaded */
export function lateClass<C extends Class>(missing: (options: unknown) => Error): LateClass<C> {
  let real: (new (...args: unknown[]) => object) | null = null;
  class Late {
    constructor(...args: unknown[]) {
      if (real === null) throw missing(args[0]);
      return Reflect.construct(real, args, new.target === Late ? real : new.target);
    }

    /** Servers create objects of the real class. */
    static [Symbol.hasInstance](value: unknown): boolean {
      if (this !== Late) return Function.prototype[Symbol.hasInstance].call(this, value);
      return real !== null && value instanceof real;
    }
  }
  return {
    type: Late as unknown as C,
    loaded: (loaded) => {
      real = loaded as unknown as new (...args: unknown[]) => object;
      Object.setPrototypeOf(Late, real);
      Object.setPrototypeOf(Late.prototype, real.prototype as object);
    },
  };
}

/** The error of `new` before the first stack exists: the option `stack` must be wrong. */
function noStack(options: unknown): Error {
  const { stack } = (options ?? {}) as { stack?: unknown };
  return invalidArgType('options.stack', 'an instance of Stack', stack);
}

export const lateSocket = lateClass<typeof Socket>(noStack);
export const lateServer = lateClass<typeof Server>(noStack);
