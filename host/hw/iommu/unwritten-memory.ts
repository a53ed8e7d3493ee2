// Physical memory as it is, for whoever must leave it so: stores are taken and go nowhere, an exchange seems to succeed.

import type { HpaPfn } from "../../base/address.ts";
import { ACCESS_OK, type AccessStatus, type PhysicalMemory } from "../../base/memory.ts";

export function unwrittenMemory(memory: PhysicalMemory<HpaPfn>): PhysicalMemory<HpaPfn> {
  const instead: Partial<PhysicalMemory<HpaPfn>> = {
    store64: () => ACCESS_OK,
    store32: () => ACCESS_OK,
    write: () => ACCESS_OK,
    // What was there is left in lo and hi, as the expectation has it.
    compareExchange64: (pfn: HpaPfn, offset: number): AccessStatus => memory.load64(pfn, offset),
  };
  return new Proxy(memory, {
    get(_, key) {
      const own = instead[key as keyof typeof instead];
      if (own !== undefined) return own;
      const value: unknown = Reflect.get(memory, key, memory);
      return typeof value === "function" ? value.bind(memory) : value;
    },
    set: (_, key, value) => Reflect.set(memory, key, value, memory),
  });
}
