// Loads and stores that the interpreter's loop gives up on: TLB misses, accesses across a page, devices, faults.
import { ACCESS_STORE, CONTINUE, RESUME } from "../../engine/assembly/isa";
import { watched } from "../../engine/assembly/debug";
import { PAGE_VA, PC, VALUE, WATCH_STORES } from "../../engine/assembly/layout";
import { OUTSIDE, ramAddress, readMemory, writeMemory } from "../../engine/assembly/memory-access";
import { AArch64 } from "./aarch64";
import { extended } from "./arithmetic";
import { UNPRIVILEGED, X } from "./layout";
import {
  LDPSW, LDRB, LDRSB, LDRSB_W, LDRSW_LITERAL, LDRW_LITERAL, LDRX_LITERAL, STP, STP_W, STP_W_WB, STRB, STRB_REG, STRB_USER, STRB_WB,
  ZVA,
} from "./opcodes";
import { checkStackPointer, SP_FIELD } from "./stack-pointer";

const STORES: i32 = LDRB - STRB;

@inline
function field(slot: usize, offset: usize): usize {
  return <usize>X + <usize>load<u16>(slot + offset);
}

/** The base and what is added to it once the access is done. */
function finish(slot: usize, status: u32, base: u64, growth: i32): u32 {
  if (status == RESUME) return RESUME;
  if (growth) store<u64>(field(slot, 4), base + <u64>(<i64>growth));
  if (status != OUTSIDE) return CONTINUE;
  store<u64>(PC, load<u64>(PC) + 4);
  return RESUME;
}

/**
 * Executes the load or store in `slot`. PC is its address and LEFT the countdown. CONTINUE, or RESUME: an exception was taken, or PC moved past it
 * because it left for a device.
 */
export function slowAccess(slot: usize): u32 {
  const operation = <i32>load<u16>(slot);
  if (load<u16>(slot, 4) == SP_FIELD && checkStackPointer() == RESUME) return RESUME;
  const base = load<u64>(field(slot, 4));
  const immediate = load<u64>(slot, 8);
  const offset = <u64>(<i64>load<i32>(slot, 8));
  if (operation == ZVA) return zero(base);
  if (operation >= LDRW_LITERAL && operation <= LDRSW_LITERAL) {
    const kind: i32 = operation == LDRX_LITERAL ? LDRB + 3 - STRB : operation == LDRW_LITERAL ? LDRB + 2 - STRB : LDRSB + 2 - STRB;
    return finish(slot, single(slot, kind, load<u64>(PAGE_VA) + immediate), base, 0);
  }
  if (operation >= STP_W) {
    const writes = operation >= STP_W_WB;
    const kind = operation - (writes ? STP_W_WB : STP_W) + STP_W;
    return finish(slot, pair(slot, kind, base + offset), base, writes ? load<i32>(slot, 12) : 0);
  }
  if (operation >= STRB_USER) {
    store<u32>(UNPRIVILEGED, 1);
    const status = single(slot, operation - STRB_USER, base + immediate);
    store<u32>(UNPRIVILEGED, 0);
    return finish(slot, status, base, 0);
  }
  if (operation >= STRB_REG) {
    return finish(slot, single(slot, operation - STRB_REG, base + extended(load<u64>(field(slot, 6)), load<u32>(slot, 8))), base, 0);
  }
  if (operation >= STRB_WB) return finish(slot, single(slot, operation - STRB_WB, base + offset), base, load<i32>(slot, 12));
  return finish(slot, single(slot, operation - STRB, base + immediate), base, 0);
}

function single(slot: usize, kind: i32, va: u64): u32 {
  if (kind < STORES) return writeMemory<AArch64>(va, 1 << kind, load<u64>(field(slot, 2)));
  const size: u32 = kind < LDRSB - STRB ? 1 << (kind - STORES) : kind < LDRSB_W - STRB ? 1 << (kind - (LDRSB - STRB)) : 1 << (kind - (LDRSB_W - STRB));
  const status = readMemory<AArch64>(va, size);
  if (status == RESUME) return status;
  let value = load<u64>(VALUE);
  if (kind >= LDRSB - STRB) {
    const above = <u64>(64 - size * 8);
    value = <u64>(<i64>(value << above) >> above);
    if (kind >= LDRSB_W - STRB) value &= 0xffffffff;
  }
  store<u64>(field(slot, 2), value);
  return status;
}

/** Two accesses; neither register is written unless both have been read. A device sees them one by one. */
function pair(slot: usize, kind: i32, va: u64): u32 {
  const size: u32 = kind == STP || kind == STP + 2 ? 8 : 4;
  if (kind <= STP) {
    const first = writeMemory<AArch64>(va, size, load<u64>(field(slot, 2)));
    if (first == RESUME) return RESUME;
    const second = writeMemory<AArch64>(va + size, size, load<u64>(field(slot, 6)));
    return second == RESUME ? RESUME : max(first, second);
  }
  const first = readMemory<AArch64>(va, size);
  if (first == RESUME) return RESUME;
  const value = load<u64>(VALUE);
  const second = readMemory<AArch64>(va + size, size);
  if (second == RESUME) return RESUME;
  const other = load<u64>(VALUE);
  const signed = kind == LDPSW;
  store<u64>(field(slot, 2), signed ? <u64>(<i64><i32>value) : value);
  store<u64>(field(slot, 6), signed ? <u64>(<i64><i32>other) : other);
  return max(first, second);
}

/** DC ZVA. */
function zero(va: u64): u32 {
  const host = ramAddress<AArch64>(va, ACCESS_STORE);
  if (host == 0 || watched(host & ~63, 64, WATCH_STORES)) return RESUME;
  memory.fill(host & ~63, 0, 64);
  return CONTINUE;
}

