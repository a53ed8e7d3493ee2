// Stage 1 of the EL1&0 regime (DDI 0487, D8): 4 KiB granule, 48-bit addresses at both ends, no hardware updates of AF or dirty state.
import { ACCESS_FETCH, ACCESS_STORE } from "../../engine/assembly/isa";
import { LEAF_BITS, PHYSICAL } from "../../engine/assembly/layout";
import { hostAddress } from "../../engine/assembly/tlb";
import { EL, SCTLR_EL1, TCR_EL1, TLB_HALVES, TTBR0_EL1, TTBR1_EL1, UNPRIVILEGED } from "./layout";

export const SCTLR_M: u64 = 1 << 0;
const SCTLR_WXN: u64 = 1 << 19;

/** ID_AA64MMFR0_EL1.PARange = 2. */
export const PHYSICAL_BITS: u64 = 40;

/** Bits of TLB_HALVES. */
export const TTBR0_HALF: u32 = 1;
export const TTBR1_HALF_OF_ASID: u32 = 2;

// fault status codes (ISS.DFSC, IFSC), level in the low bits
export const FAULT_ADDRESS_SIZE: u32 = 0x00;
export const FAULT_TRANSLATION: u32 = 0x04;
export const FAULT_ACCESS_FLAG: u32 = 0x08;
export const FAULT_PERMISSION: u32 = 0x0c;
export const FAULT_EXTERNAL: u32 = 0x10;
const FAULT_EXTERNAL_ON_WALK: u32 = 0x14;
/** A fault's number for the engine: its status code and this, for 0 is no fault. */
export const IS_FAULT: u32 = 0x100;

const PTE_AP_EL0: u64 = 1 << 6;
const PTE_AP_READ_ONLY: u64 = 1 << 7;
const PTE_AF: u64 = 1 << 10;
const PTE_NG: u64 = 1 << 11;
const PTE_PXN: u64 = 1 << 53;
const PTE_UXN: u64 = 1 << 54;
const TABLE_PXN: u64 = 1 << 59;
const TABLE_UXN: u64 = 1 << 60;
const TABLE_AP_NO_EL0: u64 = 1 << 61;
const TABLE_AP_READ_ONLY: u64 = 1 << 62;

/** Translates as the current level does, or as EL0 under LDTR: 0 with PHYSICAL and LEAF_BITS set, or a fault's number. */
export function translate(va: u64, access: u32): u32 {
  if (!(load<u64>(SCTLR_EL1) & SCTLR_M)) {
    if (va >> PHYSICAL_BITS) return IS_FAULT | FAULT_ADDRESS_SIZE;
    store<u64>(PHYSICAL, va);
    store<u32>(LEAF_BITS, 12);
    return 0;
  }
  const tcr = load<u64>(TCR_EL1);
  const upper = <u32>(va >> 55) & 1;
  const half: u64 = upper ? 16 : 0; // TCR's fields of TTBR1 are those of TTBR0, 16 bits up
  const size = <u64>(64 - clampSize(<u32>(tcr >> half) & 63));
  const ignored = (tcr >> (37 + <u64>upper)) & 1; // TBI
  const top = ignored ? (va << 8) >> 8 : va;
  const outside = upper ? (~top & (ignored ? 0x00ffffffffffffff : <u64>-1)) >> size : top >> size;
  const granule = <u32>(tcr >> (upper ? 30 : 14)) & 3;
  if (outside || (tcr >> (7 + half)) & 1 || granule != (upper ? 2 : 0)) return IS_FAULT | FAULT_TRANSLATION;
  let level: u32 = 4 - (<u32>size - 4) / 9;
  const ttbr = load<u64>(upper ? TTBR1_EL1 : TTBR0_EL1);
  const indexBits = <u64>(size - 12) - 9 * <u64>(3 - level); // of the first table
  let table = ttbr & 0x0000fffffffffffe & ~(((<u64>8) << indexBits) - 1);
  let width = indexBits;
  let inherited: u64 = 0;
  const outputBits = outputSize(<u32>(tcr >> 32) & 7);
  if (table >> outputBits) return IS_FAULT | FAULT_ADDRESS_SIZE;
  for (;;) {
    const shift: u64 = 12 + 9 * <u64>(3 - level);
    const entry = hostAddress(table + (((va >> shift) & ((<u64>1 << width) - 1)) << 3));
    if (entry == 0) return IS_FAULT | FAULT_EXTERNAL_ON_WALK | level;
    const descriptor = load<u64>(entry);
    if (!(descriptor & 1)) return IS_FAULT | FAULT_TRANSLATION | level;
    const address = descriptor & 0x0000fffffffff000;
    if (descriptor & 2 && level < 3) {
      if (address >> outputBits) return IS_FAULT | FAULT_ADDRESS_SIZE | level;
      inherited |= descriptor;
      table = address;
      width = 9;
      level++;
      continue;
    }
    if (!(descriptor & 2) == (level == 3) || level == 0) return IS_FAULT | FAULT_TRANSLATION | level;
    if (address >> outputBits) return IS_FAULT | FAULT_ADDRESS_SIZE | level;
    if (!(descriptor & PTE_AF)) return IS_FAULT | FAULT_ACCESS_FLAG | level;
    if (!permits(descriptor, inherited, access)) return IS_FAULT | FAULT_PERMISSION | level;
    if (!upper) store<u32>(TLB_HALVES, load<u32>(TLB_HALVES) | TTBR0_HALF);
    else if (descriptor & PTE_NG) store<u32>(TLB_HALVES, load<u32>(TLB_HALVES) | TTBR1_HALF_OF_ASID);
    const inside = ((<u64>1) << shift) - 1;
    store<u64>(PHYSICAL, (address & ~inside) | (va & inside));
    store<u32>(LEAF_BITS, <u32>shift);
    return 0;
  }
}

/** T0SZ and T1SZ as far as they are implemented (D24.2.163: values outside behave as the nearest). */
@inline
function clampSize(field: u32): u32 {
  return min<u32>(max<u32>(field, 16), 39);
}

/** TCR_EL1.IPS, no more than PHYSICAL_BITS. */
@inline
function outputSize(ips: u32): u64 {
  return ips == 0 ? 32 : ips == 1 ? 36 : PHYSICAL_BITS;
}

/** Access permissions (D8.4): the leaf's, and what the tables above it take away. */
function permits(leaf: u64, tables: u64, access: u32): bool {
  const user = load<u32>(EL) == 0 || load<u32>(UNPRIVILEGED) != 0;
  const forUser = leaf & PTE_AP_EL0 && !(tables & TABLE_AP_NO_EL0);
  const writable = !(leaf & PTE_AP_READ_ONLY) && !(tables & TABLE_AP_READ_ONLY);
  if (access == ACCESS_FETCH) {
    if (writable && load<u64>(SCTLR_EL1) & SCTLR_WXN && (!user || forUser)) return false;
    if (user) return forUser && !(leaf & PTE_UXN) && !(tables & TABLE_UXN);
    // what EL0 may write, EL1 does not execute
    return !(leaf & PTE_PXN) && !(tables & TABLE_PXN) && !(forUser && writable);
  }
  if (user && !forUser) return false;
  return access != ACCESS_STORE || writable;
}
