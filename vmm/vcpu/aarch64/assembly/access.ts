// Loads and stores that hit the TLB, for the interpreter's loop: inlined, false on a miss. The page of the last byte is compared with the entry of the
// first, so that an access across a page misses.
import { place } from "../../engine/assembly/tlb";
import { PAGE_MASK } from "../../engine/assembly/isa";
import { TLB_STORE } from "../../engine/assembly/layout";
import { X } from "./layout";

@inline
export function loadEntry(tlb: usize, va: u64): usize {
  return tlb + place(va);
}

@inline
function hits(entry: usize, last: u64): bool {
  return load<u64>(entry) == (last & PAGE_MASK);
}

@inline
function host(entry: usize, va: u64): usize {
  return <u32>va + load<u32>(entry, 8);
}

@inline
function set(ip: usize, value: u64): void {
  store<u64>(load<u16>(ip, 2), value, X);
}

@inline
function data(ip: usize): u64 {
  return load<u64>(load<u16>(ip, 2), X);
}

@inline
export function ldrb(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va);
  if (!hits(entry, va)) return false;
  set(ip, <u64>load<u8>(host(entry, va)));
  return true;
}

@inline
export function ldrh(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va);
  if (!hits(entry, va + 1)) return false;
  set(ip, <u64>load<u16>(host(entry, va)));
  return true;
}

@inline
export function ldrw(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va);
  if (!hits(entry, va + 3)) return false;
  set(ip, <u64>load<u32>(host(entry, va)));
  return true;
}

@inline
export function ldrx(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va);
  if (!hits(entry, va + 7)) return false;
  set(ip, load<u64>(host(entry, va)));
  return true;
}

@inline
export function ldrsb(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va);
  if (!hits(entry, va)) return false;
  set(ip, <u64>(<i64>load<i8>(host(entry, va))));
  return true;
}

@inline
export function ldrsh(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va);
  if (!hits(entry, va + 1)) return false;
  set(ip, <u64>(<i64>load<i16>(host(entry, va))));
  return true;
}

@inline
export function ldrsw(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va);
  if (!hits(entry, va + 3)) return false;
  set(ip, <u64>(<i64>load<i32>(host(entry, va))));
  return true;
}

@inline
export function ldrsbWord(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va);
  if (!hits(entry, va)) return false;
  set(ip, <u64>(<u32>(<i32>load<i8>(host(entry, va)))));
  return true;
}

@inline
export function ldrshWord(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va);
  if (!hits(entry, va + 1)) return false;
  set(ip, <u64>(<u32>(<i32>load<i16>(host(entry, va)))));
  return true;
}

@inline
export function strb(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va) + TLB_STORE;
  if (!hits(entry, va)) return false;
  store<u8>(host(entry, va), <u8>data(ip));
  return true;
}

@inline
export function strh(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va) + TLB_STORE;
  if (!hits(entry, va + 1)) return false;
  store<u16>(host(entry, va), <u16>data(ip));
  return true;
}

@inline
export function strw(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va) + TLB_STORE;
  if (!hits(entry, va + 3)) return false;
  store<u32>(host(entry, va), <u32>data(ip));
  return true;
}

@inline
export function strx(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va) + TLB_STORE;
  if (!hits(entry, va + 7)) return false;
  store<u64>(host(entry, va), data(ip));
  return true;
}

@inline
export function ldpWords(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va);
  if (!hits(entry, va + 7)) return false;
  const at = host(entry, va);
  const first = load<u32>(at);
  const second = load<u32>(at, 4);
  set(ip, <u64>first);
  store<u64>(load<u16>(ip, 6), <u64>second, X);
  return true;
}

@inline
export function ldpSignedWords(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va);
  if (!hits(entry, va + 7)) return false;
  const at = host(entry, va);
  const first = load<i32>(at);
  const second = load<i32>(at, 4);
  set(ip, <u64>(<i64>first));
  store<u64>(load<u16>(ip, 6), <u64>(<i64>second), X);
  return true;
}

@inline
export function ldp(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va);
  if (!hits(entry, va + 15)) return false;
  const at = host(entry, va);
  const first = load<u64>(at);
  const second = load<u64>(at, 8);
  set(ip, first);
  store<u64>(load<u16>(ip, 6), second, X);
  return true;
}

@inline
export function stpWords(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va) + TLB_STORE;
  if (!hits(entry, va + 7)) return false;
  const at = host(entry, va);
  store<u32>(at, <u32>data(ip));
  store<u32>(at, <u32>load<u64>(load<u16>(ip, 6), X), 4);
  return true;
}

@inline
export function stp(tlb: usize, ip: usize, va: u64): bool {
  const entry = loadEntry(tlb, va) + TLB_STORE;
  if (!hits(entry, va + 15)) return false;
  const at = host(entry, va);
  store<u64>(at, data(ip));
  store<u64>(at, load<u64>(load<u16>(ip, 6), X), 8);
  return true;
}

/** DC ZVA: 64 bytes of zeros. */
@inline
export function zeroBlock(tlb: usize, va: u64): bool {
  const entry = loadEntry(tlb, va) + TLB_STORE;
  if (!hits(entry, va)) return false;
  const at = host(entry, va) & ~63;
  store<u64>(at, 0);
  store<u64>(at, 0, 8);
  store<u64>(at, 0, 16);
  store<u64>(at, 0, 24);
  store<u64>(at, 0, 32);
  store<u64>(at, 0, 40);
  store<u64>(at, 0, 48);
  store<u64>(at, 0, 56);
  return true;
}
