// An instruction set small enough to read, for tests of the engine: made of what RV64 has not and AArch64 has. Instructions of 4 bytes only, slots of 16
// (three registers and 64 bits), a program counter that can be misaligned, flags that are made where they are used, invalidation by line.
import { copyLine, refetchLine } from "../../../../../../vmm/vcpu/engine/assembly/decode-cache";
import { CONTINUE, LEAVE, PAGE_MASK, RESUME, STEP } from "../../../../../../vmm/vcpu/engine/assembly/isa";
import {
  DECODE_CODE, EXIT_CALL, EXIT_WFI, LEAF_BITS, LEFT, PAGE_BASE, PAGE_VA, PC, PHYSICAL, REFETCH, SLOT, TLB_STORE, TRANSLATED, UNDECODED,
  VALUE,
} from "../../../../../../vmm/vcpu/engine/assembly/layout";
import { OUTSIDE, readMemory, writeMemory } from "../../../../../../vmm/vcpu/engine/assembly/memory-access";
import * as engine from "../../../../../../vmm/vcpu/engine/assembly/run";
import { ticks, untilTicks } from "../../../../../../vmm/vcpu/engine/assembly/time";
import * as time from "../../../../../../vmm/vcpu/engine/assembly/time";
import { dataTable, fetchTable, flushAddress, flushAll, hostAddress, place } from "../../../../../../vmm/vcpu/engine/assembly/tlb";
import { runTranslated } from "../../../../../../vmm/vcpu/engine/assembly/translated";
import {
  ADD, B, BEQ, BL, BLT, BL_FAR, BR, B_FAR, CALLS, CAUSE, CMP, DEADLINE, ELR, FAR, FAULT_ALIGNMENT, FAULT_BUS, FAULT_ILLEGAL, FAULT_PERMISSION,
  FAULT_TRANSLATION, FLAG_A, FLAG_B, ILLEGAL, INTERRUPT, LDR, MASKED, MIX, MODE, MOVI, R, SAVED_MASKED, SAVED_MODE, STR, SWITCHES, SYSTEM, TABLE,
  VECTOR,
} from "./layout";

export { refetchInstructions } from "../../../../../../vmm/vcpu/engine/assembly/decode-cache";
export { markTlbs } from "../../../../../../vmm/vcpu/engine/assembly/debug";
export { forgetJumps } from "../../../../../../vmm/vcpu/engine/assembly/jumps";
export { reset } from "../../../../../../vmm/vcpu/engine/assembly/run";
export { flushAll } from "../../../../../../vmm/vcpu/engine/assembly/tlb";

@unmanaged
class Tiny {
  @inline offsetMask(): u32 { return 0xffc; }
  @inline dataContext(): u32 { return load<u32>(MODE); }
  @inline fetchContext(): u32 { return load<u32>(MODE); }

  /** One table of 512 descriptors for 2 MiB: bit 0 valid, 1 user, 2 writable, 4 one of 16 that map 64 KiB together. */
  translate(va: u64, access: u32): u32 {
    const table = load<u64>(TABLE);
    store<u64>(PHYSICAL, va);
    store<u32>(LEAF_BITS, 12);
    if (table == 0) return 0;
    if (va >> 21) return FAULT_TRANSLATION;
    const at = hostAddress(table + (va >> 12) * 8);
    if (at == 0) return FAULT_BUS;
    const descriptor = load<u64>(at);
    if (!(descriptor & 1)) return FAULT_TRANSLATION;
    if (load<u32>(MODE) == 0 && !(descriptor & 2)) return FAULT_PERMISSION;
    if (access == 1 && !(descriptor & 4)) return FAULT_PERMISSION;
    if (descriptor & 16) store<u32>(LEAF_BITS, 16);
    store<u64>(PHYSICAL, (descriptor & PAGE_MASK) | (va & 0xfff));
    return 0;
  }

  fault(cause: u32, va: u64, access: u32): void { enterKernel(cause, va); }
  busError(va: u64, access: u32): void { enterKernel(FAULT_BUS, va); }

  takeInterrupt(): void {
    if (!load<u32>(MASKED) && pending()) enterKernel(INTERRUPT, 0);
  }

  @inline untilTimer(): u32 { return untilTicks(load<u64>(DEADLINE)); }
  switched(): void { store<u32>(SWITCHES, load<u32>(SWITCHES) + 1); }
  @inline execute(slot: usize, n: u32): u32 { return execute(slot, n); }
  @inline isAccess(operation: u32): bool { return operation == LDR || operation == STR; }
  access(slot: usize): u32 { return access(slot); }
  @inline slotBytes(slot: usize): u32 { return 16; }
  step(): u32 { return step(); }
}

export function run(budget: u32): u32 { return engine.run<Tiny>(budget); }
export function resume(): u32 { return engine.resume<Tiny>(); }
export function selectHart(index: u32): void { time.selectHart<Tiny>(index); }
export function interruptPending(): bool { return pending(); }

/** What mix computes: a function of the core that translated code calls. */
export function mix(a: u64, b: u64): u64 {
  return rotl<u64>(a ^ 0x9e3779b97f4a7c15, 23) * (b | 1);
}

function pending(): bool {
  return ticks() >= load<u64>(DEADLINE);
}

function enterKernel(cause: u64, far: u64): void {
  store<u64>(ELR, load<u64>(PC));
  store<u64>(CAUSE, cause);
  store<u64>(FAR, far);
  store<u32>(SAVED_MODE, load<u32>(MODE));
  store<u32>(SAVED_MASKED, load<u32>(MASKED));
  store<u32>(MODE, 1);
  store<u32>(MASKED, 1);
  store<u64>(PC, load<u64>(VECTOR));
}

// --- slots: {operation u16, d u16, n u16, m u16, immediate i64}; registers as 8 × number ---

@inline
function d(ip: usize): usize { return <usize>R + load<u16>(ip, 2); }
@inline
function n1(ip: usize): u64 { return load<u64>(<usize>R + load<u16>(ip, 4)); }
@inline
function m1(ip: usize): u64 { return load<u64>(<usize>R + load<u16>(ip, 6)); }

function fillSlot(slot: usize, page: usize): void {
  const offset = <u32>(slot - page) >> 2;
  copyLine(page, offset >> 7);
  const code = load<u32>(page + offset, DECODE_CODE);
  const narrow: i64 = <i64>(<i32>(code << 20) >> 20);
  const wide: i64 = <i64>(<i32>(code << 16) >> 16);
  const target: i64 = <i64>offset + wide * 4;
  const near = target >= 0 && target < 4096;
  let operation: u32 = ILLEGAL;
  let immediate = narrow;
  switch (code >> 24) {
    case 0x01: operation = MOVI; immediate = wide; break;
    case 0x02: operation = ADD; break;
    case 0x03: operation = CMP; break;
    case 0x04: operation = near ? B : B_FAR; immediate = wide * 4; break;
    case 0x05: case 0x06: // within the page only
      if (near) operation = code >> 24 == 5 ? BEQ : BLT;
      immediate = wide * 4;
      break;
    case 0x07: operation = near ? BL : BL_FAR; immediate = wide * 4; break;
    case 0x08: operation = BR; break;
    case 0x09: operation = LDR; break;
    case 0x0a: operation = STR; break;
    case 0x0b: operation = MIX; break;
    case 0x0c: operation = SYSTEM; break;
  }
  if (operation == ILLEGAL || operation == SYSTEM) immediate = <i64>code;
  store<u16>(slot, <u16>operation);
  store<u16>(slot, <u16>(((code >> 20) & 15) * 8), 2);
  store<u16>(slot, <u16>(((code >> 16) & 15) * 8), 4);
  store<u16>(slot, <u16>(((code >> 12) & 15) * 8), 6);
  store<i64>(slot, immediate, 8);
}

function execute(ip: usize, n: u32): u32 {
  let pageVa = load<u64>(PAGE_VA);
  let pageBase: usize = load<u32>(PAGE_BASE);
  const tlb = dataTable(load<u32>(MODE));
  const fetch = fetchTable(load<u32>(MODE));
  for (;;) {
    const pc = pageVa + (<u64>(ip - pageBase) >> 2);
    let target: u64 = 0;
    let jumps = false;
    let left = false;
    if (n == 0) {
      leave(ip, n, pc, pageVa, pageBase);
      return RESUME;
    }
    n--;
    switch (<i32>load<u16>(ip)) {
      case REFETCH: n++; target = pc; jumps = true; break;
      case MOVI: store<u64>(d(ip), load<u64>(ip, 8)); break;
      case ADD: store<u64>(d(ip), n1(ip) + m1(ip) + load<u64>(ip, 8)); break;
      case CMP: store<u64>(FLAG_A, n1(ip)); store<u64>(FLAG_B, m1(ip)); break;
      case B: case B_FAR: target = pc + load<u64>(ip, 8); jumps = true; break;
      case BEQ: if (load<u64>(FLAG_A) == load<u64>(FLAG_B)) { target = pc + load<u64>(ip, 8); jumps = true; } break;
      case BLT: if (load<i64>(FLAG_A) < load<i64>(FLAG_B)) { target = pc + load<u64>(ip, 8); jumps = true; } break;
      case BL: case BL_FAR: store<u64>(R + 15 * 8, pc + 4); target = pc + load<u64>(ip, 8); jumps = true; break;
      case BR: target = n1(ip); jumps = true; left = (target & 3) != 0; break;
      case LDR: {
        const va = n1(ip) + load<u64>(ip, 8);
        const entry = tlb + place(va);
        if (load<u64>(entry) == ((va + 7) & PAGE_MASK)) store<u64>(d(ip), load<u64>(<u32>va + load<u32>(entry, 8)));
        else left = true;
        break;
      }
      case STR: {
        const va = n1(ip) + load<u64>(ip, 8);
        const entry = tlb + place(va);
        if (load<u64>(entry, TLB_STORE) == ((va + 7) & PAGE_MASK)) store<u64>(<u32>va + load<u32>(entry, TLB_STORE + 8), load<u64>(d(ip)));
        else left = true;
        break;
      }
      case MIX: store<u64>(d(ip), mix(n1(ip), m1(ip))); break;
      default: left = true;
    }
    if (left) {
      leave(ip, n, pc, pageVa, pageBase);
      return STEP;
    }
    if (!jumps) {
      ip += 16;
      continue;
    }
    const entry = fetch + place(target);
    if (load<u64>(entry) != (target & PAGE_MASK)) {
      store<u64>(PC, target);
      store<u32>(LEFT, n);
      return RESUME;
    }
    pageVa = target & PAGE_MASK;
    pageBase = load<u32>(entry, 8);
    ip = pageBase + ((<u32>target & 0xffc) << 2);
  }
  return RESUME;
}

function leave(ip: usize, n: u32, pc: u64, pageVa: u64, pageBase: usize): void {
  store<u64>(PC, pc);
  store<u32>(LEFT, n);
  store<u32>(SLOT, ip);
  store<u64>(PAGE_VA, pageVa);
  store<u32>(PAGE_BASE, pageBase);
}

function step(): u32 {
  const slot: usize = load<u32>(SLOT);
  const pc = load<u64>(PC);
  store<u32>(CALLS, load<u32>(CALLS) + 1);
  switch (<i32>load<u16>(slot)) {
    case UNDECODED:
      store<u32>(LEFT, load<u32>(LEFT) + 1);
      fillSlot(slot, load<u32>(PAGE_BASE));
      return CONTINUE;
    case TRANSLATED: return runTranslated<Tiny>(slot, load<u32>(LEFT) + 1);
    case BR:
      goTo(n1(slot));
      return RESUME;
    case LDR: case STR:
      if (access(slot) == RESUME) return RESUME;
      break;
    case SYSTEM: return system(<u32>load<u64>(slot, 8), n1(slot), pc);
    default:
      enterKernel(FAULT_ILLEGAL, load<u64>(slot, 8));
      return RESUME;
  }
  store<u32>(SLOT, <u32>slot + 16);
  return CONTINUE;
}

function access(slot: usize): u32 {
  const va = n1(slot) + load<u64>(slot, 8);
  const loads = load<u16>(slot) == LDR;
  const status = loads ? readMemory<Tiny>(va, 8) : writeMemory<Tiny>(va, 8, load<u64>(d(slot)));
  if (status == RESUME) return RESUME;
  if (loads) store<u64>(d(slot), load<u64>(VALUE));
  if (status != OUTSIDE) return CONTINUE;
  store<u64>(PC, load<u64>(PC) + 4);
  return RESUME;
}

/** Sets PC; where no instruction can begin the fault is taken at once, with that as its pc. */
function goTo(target: u64): void {
  store<u64>(PC, target);
  if (target & 3) enterKernel(FAULT_ALIGNMENT, target);
}

function system(code: u32, operand: u64, pc: u64): u32 {
  store<u64>(PC, pc + 4);
  switch (code & 0xfff) {
    case 0: return LEAVE + EXIT_WFI;
    case 1: return LEAVE + EXIT_CALL;
    case 2: // the line of code at a virtual address has changed
      if (changetype<Tiny>(0).translate(operand, 0) == 0) refetchLine(load<u64>(PHYSICAL));
      return RESUME;
    case 3: store<u64>(TABLE, operand); flushAll(); return RESUME;
    case 4: flushAddress(operand); return RESUME;
    case 5: // return from an exception
      store<u32>(MODE, load<u32>(SAVED_MODE));
      store<u32>(MASKED, load<u32>(SAVED_MASKED));
      goTo(load<u64>(ELR));
      return RESUME;
    case 6: store<u64>(ELR, operand); return RESUME;
    case 7: store<u32>(SAVED_MODE, <u32>operand & 1); return RESUME;
  }
  store<u64>(PC, pc);
  enterKernel(FAULT_ILLEGAL, code);
  return RESUME;
}
