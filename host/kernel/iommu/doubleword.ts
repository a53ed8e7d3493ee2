// A doubleword of the driver's own memory as one value: directories, which change seldom, and queue entries. Page tables are written in
// halves.

import type { HpaPfn } from "../../base/address.ts";
import type { MemoryPort } from "../../base/memory.ts";

export function loadDoubleword(memory: MemoryPort<HpaPfn>, table: HpaPfn, offset: number): bigint {
  memory.load64(table, offset);
  return (BigInt(memory.hi) << 32n) | BigInt(memory.lo);
}

export function storeDoubleword(memory: MemoryPort<HpaPfn>, table: HpaPfn, offset: number, value: bigint): void {
  memory.store64(table, offset, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
}
