// Loads and stores that an interpreter's inline path gives up on: TLB misses, accesses across a page, MMIO, faults.
import { ACCESS_LOAD, ACCESS_STORE, CONTINUE, PAGE_MASK, RESUME } from "./isa";
import { mmio } from "./imports";
import { watched } from "./debug";
import { LEFT, MMIO_VALUE, PHYSICAL, TLB_MARK, TLB_STORE, VALUE, WATCH_LOADS, WATCH_STORES } from "./layout";
import { synchronise } from "./time";
import { dataTable, fillData, hostAddress, place } from "./tlb";

/** An access left the machine's memory: interrupts, time or the budget may have changed, the interpreter must look. */
export const OUTSIDE: u32 = 3;

/** Reads `size` (1, 2, 4, 8) bytes at va into VALUE, zero-extended. CONTINUE, OUTSIDE, or RESUME with a fault taken. */
export function readMemory<Isa>(va: u64, size: u32): u32 {
  if ((<u32>va & 0xfff) + size > 4096) return readAcross<Isa>(va, size);
  const host = locate<Isa>(va, ACCESS_LOAD);
  if (host == FAULTED) return RESUME;
  if (host == 0) return device<Isa>(va, size, ACCESS_LOAD, 0);
  if (watched(host, size, WATCH_LOADS)) return RESUME;
  switch (size) {
    case 1: store<u64>(VALUE, load<u8>(host)); break;
    case 2: store<u64>(VALUE, load<u16>(host)); break;
    case 4: store<u64>(VALUE, load<u32>(host)); break;
    default: store<u64>(VALUE, load<u64>(host)); break;
  }
  return CONTINUE;
}

/** Writes the low `size` bytes of `value`. */
export function writeMemory<Isa>(va: u64, size: u32, value: u64): u32 {
  if ((<u32>va & 0xfff) + size > 4096) return writeAcross<Isa>(va, size, value);
  const host = locate<Isa>(va, ACCESS_STORE);
  if (host == FAULTED) return RESUME;
  if (host == 0) return device<Isa>(va, size, ACCESS_STORE, value);
  if (watched(host, size, WATCH_STORES)) return RESUME;
  switch (size) {
    case 1: store<u8>(host, <u8>value); break;
    case 2: store<u16>(host, <u16>value); break;
    case 4: store<u32>(host, <u32>value); break;
    default: store<u64>(host, value); break;
  }
  return CONTINUE;
}

/** The host address of va, which the TLB then knows; 0 if it is not RAM, PHYSICAL says where it is; FAULTED with a fault taken. */
function locate<Isa>(va: u64, access: u32): usize {
  const isa = changetype<Isa>(0);
  const context = isa.dataContext();
  const entry = dataTable(context) + access * TLB_STORE + place(va);
  if ((load<u64>(entry) & ~<u64>TLB_MARK) == (va & PAGE_MASK)) return <u32>va + load<u32>(entry, 8);
  const fault = isa.translate(va, access);
  if (fault) {
    isa.fault(fault, va, access);
    return FAULTED;
  }
  const host = hostAddress(load<u64>(PHYSICAL));
  if (host) fillData(context, va, host, access);
  return host;
}

/** No RAM lies at the core's own state. */
const FAULTED: usize = 1;

/**
 * The host address of va, which must be RAM; 0 with a fault or bus error taken. By the TLB, as every access: what a guest has not flushed must not
 * depend on which instruction looks, or on whether that is translated. Who touches it asks `watched` before.
 */
export function ramAddress<Isa>(va: u64, access: u32): usize {
  const host = locate<Isa>(va, access);
  if (host > FAULTED) return host;
  if (host == 0) changetype<Isa>(0).busError(va, access);
  return 0;
}

/** MMIO at PHYSICAL: naturally aligned accesses leave through the import, others are bus errors. */
function device<Isa>(va: u64, size: u32, access: u32, value: u64): u32 {
  const address = load<u64>(PHYSICAL);
  if (!(address & (size - 1))) {
    synchronise(load<u32>(LEFT));
    store<u64>(MMIO_VALUE, 0);
    const mask = size == 8 ? <u64>-1 : (<u64>1 << (size * 8)) - 1;
    const sent = value & mask;
    const refused = mmio(<u32>address, <u32>(address >> 32), size, access == ACCESS_STORE ? 1 : 0, <u32>sent, <u32>(sent >> 32));
    if (!refused) {
      store<u64>(VALUE, load<u64>(MMIO_VALUE) & mask);
      return OUTSIDE;
    }
  }
  changetype<Isa>(0).busError(va, access);
  return RESUME;
}

/** The two RAM pages of an access across a page: both must translate before a byte moves. Returns the second host address, 0 with a fault taken. */
function across<Isa>(va: u64, access: u32): usize {
  const first = ramAddress<Isa>(va, access);
  if (first == 0) return 0;
  store<u64>(VALUE, <u64>first);
  return ramAddress<Isa>((va | 0xfff) + 1, access);
}

function readAcross<Isa>(va: u64, size: u32): u32 {
  const second = across<Isa>(va, ACCESS_LOAD);
  if (second == 0) return RESUME;
  const first = <usize>load<u64>(VALUE);
  const split: u32 = 4096 - (<u32>va & 0xfff);
  if (watched(first, split, WATCH_LOADS) || watched(second, size - split, WATCH_LOADS)) return RESUME;
  let value: u64 = 0;
  for (let i: u32 = 0; i < size; i++) {
    value |= <u64>load<u8>(i < split ? first + i : second + (i - split)) << (8 * i);
  }
  store<u64>(VALUE, value);
  return CONTINUE;
}

function writeAcross<Isa>(va: u64, size: u32, value: u64): u32 {
  const second = across<Isa>(va, ACCESS_STORE);
  if (second == 0) return RESUME;
  const first = <usize>load<u64>(VALUE);
  const split: u32 = 4096 - (<u32>va & 0xfff);
  if (watched(first, split, WATCH_STORES) || watched(second, size - split, WATCH_STORES)) return RESUME;
  for (let i: u32 = 0; i < size; i++) store<u8>(i < split ? first + i : second + (i - split), <u8>(value >> (8 * i)));
  return CONTINUE;
}
