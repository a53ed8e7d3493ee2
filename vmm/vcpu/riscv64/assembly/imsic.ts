// The supervisor-level interrupt file of the running hart ("IMSIC interrupt file", AIA specification §3): pending and enable bits, and the
// registers reached through siselect/sireg. TOPEI is kept up to date at every change.
import { HART, HART_STATE, HART_STATE_BYTES, SAVED_HARTS, VALUE } from "../../engine/assembly/layout";
import { EIDELIVERY, EIE, EIP, EITHRESHOLD, NUM_IDS, TOPEI } from "./layout";

/** Recomputes the lowest pending and enabled identity below the threshold. */
function settle(state: usize): void {
  const words = (load<u32>(NUM_IDS) + 64) >> 6;
  const threshold = load<u32>(state + EITHRESHOLD - HART_STATE);
  let top: u32 = 0;
  for (let word: u32 = 0; word < words; word++) {
    const bits = load<u64>(state + EIP - HART_STATE + word * 8) & load<u64>(state + EIE - HART_STATE + word * 8);
    if (bits) {
      top = word * 64 + <u32>ctz(bits);
      break;
    }
  }
  if (threshold && top >= threshold) top = 0;
  store<u32>(state + TOPEI - HART_STATE, top);
}

/** A store of `identity` to seteipnum_le of hart `index`'s file. Identities that are not implemented are ignored. */
export function raiseIdentity(index: u32, identity: u32): void {
  if (identity == 0 || identity > load<u32>(NUM_IDS)) return;
  const state: usize = index == load<u32>(HART) ? HART_STATE : SAVED_HARTS + index * HART_STATE_BYTES;
  const word = state + EIP - HART_STATE + (identity >> 6) * 8;
  store<u64>(word, load<u64>(word) | (<u64>1 << (identity & 63)));
  settle(state);
}

/** stopei: identity in 26:16 and, as priority, in 10:0. */
export function readTop(): u64 {
  const top = <u64>load<u32>(TOPEI);
  return (top << 16) | top;
}

/** A write of stopei: clears the pending bit of the identity it reads at that instant. */
export function claimTop(): void {
  const top = load<u32>(TOPEI);
  if (!top) return;
  const word = EIP + (top >> 6) * 8;
  store<u64>(word, load<u64>(word) & ~(<u64>1 << (top & 63)));
  settle(HART_STATE);
}

/** Implemented identities of 64-bit array word `word`. */
function implemented(word: u32): u64 {
  const last = load<u32>(NUM_IDS);
  if (word * 64 > last) return 0;
  const count = last + 1 - word * 64;
  const mask: u64 = count >= 64 ? <u64>-1 : (<u64>1 << count) - 1;
  return word == 0 ? mask & ~1 : mask;
}

/** Reads the register selected by siselect into VALUE; false if there is none (illegal instruction). */
export function readSelected(select: u32): bool {
  store<u64>(VALUE, 0);
  if (select >= 0x30 && select <= 0x3f) return (select & 1) == 0; // iprio: read-only zero
  if (select >= 0x80 && select <= 0xff) {
    if (select & 1) return false;
    store<u64>(VALUE, load<u64>((select & 0x40 ? EIE : EIP) + ((select & 0x3f) >> 1) * 8));
    return true;
  }
  if (select == 0x70) store<u64>(VALUE, load<u32>(EIDELIVERY));
  else if (select == 0x72) store<u64>(VALUE, load<u32>(EITHRESHOLD));
  return select >= 0x70 && select <= 0x7f;
}

/** Writes the register selected by siselect, which readSelected accepted. */
export function writeSelected(select: u32, value: u64): void {
  if (select >= 0x80) {
    const word = (select & 0x3f) >> 1;
    store<u64>((select & 0x40 ? EIE : EIP) + word * 8, value & implemented(word));
  } else if (select == 0x70) store<u32>(EIDELIVERY, <u32>value & 1);
  else if (select == 0x72) store<u32>(EITHRESHOLD, <u32>value & 0x7ff & wholeIdentities());
  settle(HART_STATE);
}

/** All bits an identity number can have: eithreshold is WLRL 0…num-ids. */
@inline
function wholeIdentities(): u32 {
  return 0xffffffff >> clz(load<u32>(NUM_IDS));
}
