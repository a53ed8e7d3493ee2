// lr, sc and the AMOs.
import { ACCESS_LOAD, ACCESS_STORE, CONTINUE, RESUME } from "../../engine/assembly/isa";
import { watched } from "../../engine/assembly/debug";
import { WATCH_LOADS, WATCH_STORES } from "../../engine/assembly/layout";
import { ramAddress } from "../../engine/assembly/memory-access";
import { RESERVATION, RESERVED_VALUE, X } from "./layout";
import { Rv64 } from "./rv64";
import { trap } from "./traps";

/** lr, sc and AMOs (A extension) on naturally aligned RAM; misaligned ones raise address-misaligned, others access faults. */
export function executeAtomic(code: u32): u32 {
  const rd = (code >> 7) & 31;
  const va = load<u64>(X + ((code >> 15) & 31) * 8);
  const operand = load<u64>(X + ((code >> 20) & 31) * 8);
  const wide = (code & 0x1000) != 0;
  const operation = code >> 27;
  const access = operation == 2 ? ACCESS_LOAD : ACCESS_STORE;
  if (va & (wide ? 7 : 3)) {
    trap(access == ACCESS_LOAD ? 4 : 6, va);
    return RESUME;
  }
  const host = ramAddress<Rv64>(va, access);
  if (host == 0) return RESUME;
  const touched: u32 = operation == 2 ? WATCH_LOADS : operation == 3 ? WATCH_STORES : WATCH_LOADS | WATCH_STORES;
  if (watched(host, wide ? 8 : 4, touched)) return RESUME;
  const old: u64 = wide ? load<u64>(host) : <u64>(<i64>load<i32>(host));
  let result = old;
  if (operation == 2) { // lr
    store<u64>(RESERVATION, <u64>host | (wide ? 1 : 0));
    store<u64>(RESERVED_VALUE, old);
  } else if (operation == 3) { // sc
    const held =
      load<u64>(RESERVATION) == (<u64>host | (wide ? 1 : 0)) && load<u64>(RESERVED_VALUE) == old;
    store<u64>(RESERVATION, <u64>-1);
    result = held ? 0 : 1;
    if (held) put(host, wide, operand);
  } else put(host, wide, wide ? combine64(operation, old, operand) : <u64>combine32(operation, <u32>old, <u32>operand));
  if (rd) store<u64>(X + rd * 8, result);
  return CONTINUE;
}

@inline
function put(host: usize, wide: bool, value: u64): void {
  if (wide) store<u64>(host, value);
  else store<u32>(host, <u32>value);
}

function combine64(operation: u32, old: u64, operand: u64): u64 {
  switch (operation) {
    case 0x00: return old + operand;
    case 0x01: return operand;
    case 0x04: return old ^ operand;
    case 0x08: return old | operand;
    case 0x0c: return old & operand;
    case 0x10: return <i64>old < <i64>operand ? old : operand;
    case 0x14: return <i64>old > <i64>operand ? old : operand;
    case 0x18: return old < operand ? old : operand;
    default: return old > operand ? old : operand;
  }
}

function combine32(operation: u32, old: u32, operand: u32): u32 {
  switch (operation) {
    case 0x00: return old + operand;
    case 0x01: return operand;
    case 0x04: return old ^ operand;
    case 0x08: return old | operand;
    case 0x0c: return old & operand;
    case 0x10: return <i32>old < <i32>operand ? old : operand;
    case 0x14: return <i32>old > <i32>operand ? old : operand;
    case 0x18: return old < operand ? old : operand;
    default: return old > operand ? old : operand;
  }
}
