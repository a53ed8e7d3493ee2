// Exclusives (DDI 0487, B2.12): a local monitor of one block, that of the last load-exclusive. A store-exclusive to the same bytes succeeds while they
// still hold what was loaded: stores of devices and of other CPUs that left the value as it was go unnoticed, and do no harm to a lock or a counter.
import { ACCESS_LOAD, ACCESS_STORE, CONTINUE, RESUME } from "../../engine/assembly/isa";
import { watched } from "../../engine/assembly/debug";
import { WATCH_LOADS, WATCH_STORES } from "../../engine/assembly/layout";
import { ramAddress } from "../../engine/assembly/memory-access";
import { AArch64 } from "./aarch64";
import { alignmentFault, UNDEFINED } from "./faults";
import { MONITOR, MONITOR_HIGH, MONITOR_LOW, X } from "./layout";
import { orSp, source, target } from "./slot";
import { checkBase } from "./stack-pointer";

/** LDXR, LDAXR, STXR, STLXR and those of pairs. */
export function executeExclusive(code: u32): u32 {
  if (code & 0x00800000) return UNDEFINED; // CAS
  const pair = (code >> 21) & 1;
  const scale = code >> 30;
  const loads = (code >> 22) & 1;
  if (pair && scale < 2) return UNDEFINED;
  if (checkBase(code) == RESUME) return RESUME;
  const bytes: u32 = (1 << scale) << pair;
  const va = load<u64>(X + orSp(code >> 5));
  if (va & <u64>(bytes - 1)) return alignmentFault(va, loads ? ACCESS_LOAD : ACCESS_STORE);
  const host = ramAddress<AArch64>(va, loads ? ACCESS_LOAD : ACCESS_STORE);
  if (host == 0 || watched(host, bytes, loads ? WATCH_LOADS : WATCH_STORES)) return RESUME;
  const name = <u64>host | (<u64>(scale + pair) << 56);
  if (loads) {
    const low = read(host, scale);
    store<u64>(MONITOR, name);
    store<u64>(MONITOR_LOW, low);
    store<u64>(X + target(code), low);
    if (pair) {
      const high = read(host + (1 << scale), scale);
      store<u64>(MONITOR_HIGH, high);
      store<u64>(X + target(code >> 10), high);
    }
    return CONTINUE;
  }
  let succeeds = load<u64>(MONITOR) == name && read(host, scale) == load<u64>(MONITOR_LOW);
  if (succeeds && pair) succeeds = read(host + (1 << scale), scale) == load<u64>(MONITOR_HIGH);
  store<u64>(MONITOR, <u64>-1);
  const first = load<u64>(X + source(code));
  const second = load<u64>(X + source(code >> 10));
  if (succeeds) {
    write(host, scale, first);
    if (pair) write(host + (1 << scale), scale, second);
  }
  store<u64>(X + target(code >> 16), succeeds ? 0 : 1);
  return CONTINUE;
}

function read(host: usize, scale: u32): u64 {
  switch (scale) {
    case 0: return load<u8>(host);
    case 1: return load<u16>(host);
    case 2: return load<u32>(host);
  }
  return load<u64>(host);
}

function write(host: usize, scale: u32, value: u64): void {
  switch (scale) {
    case 0: store<u8>(host, <u8>value); return;
    case 1: store<u16>(host, <u16>value); return;
    case 2: store<u32>(host, <u32>value); return;
  }
  store<u64>(host, value);
}
