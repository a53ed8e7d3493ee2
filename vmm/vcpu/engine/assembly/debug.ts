// Breakpoints and watchpoints. TLB entries of pages that hold one are marked (TLB_MARK): they stay what they are, and forget what they would forget, but the
// inline comparisons of interpreter and translated code miss them. So such a page's accesses come to memory-access.ts, and its code to run.ts one
// instruction at a time; all others run as if there were no debugger. Nothing here is the guest's to see, and nothing of it costs time of the guest.
//
// A run stops before the instruction: PC is its address, it is not counted, and it happens when the hart runs next, without being reported again.
import {
  BREAKPOINTS, BREAKPOINT_LIST, CHUNK, HART, HARTS, INSTRET, LEFT, PC, RAM_OFFSET, REPORTED, REPORTED_WATCH, TLBS, TLB_BYTES, TLB_FETCH,
  TLB_MARK, TLB_STORE, TLB_TABLES, WATCHPOINTS, WATCHPOINT_LIST, WATCH_ADDRESS, WATCH_HIT,
} from "./layout";
import { PAGE_MASK } from "./isa";
import { forgetJumps } from "./jumps";

/** TLB_MARK if code of the virtual page of `va` has a breakpoint, else 0. */
export function codeMark(va: u64): u64 {
  const count = load<u32>(BREAKPOINTS);
  for (let i: u32 = 0; i < count; i++) {
    if (((load<u64>(BREAKPOINT_LIST + i * 8) ^ va) & PAGE_MASK) == 0) return TLB_MARK;
  }
  return 0;
}

/** TLB_MARK if the page of RAM at `host` is watched, else 0. */
export function dataMark(host: usize): u64 {
  const count = load<u32>(WATCHPOINTS);
  const page = pageOf(host);
  for (let i: u32 = 0; i < count; i++) {
    const watch: usize = WATCHPOINT_LIST + i * 16;
    if (pageOf(load<u32>(watch)) <= page && page <= pageOf(load<u32>(watch, 4))) return TLB_MARK;
  }
  return 0;
}

@inline
function pageOf(host: usize): usize {
  return (host - load<u32>(RAM_OFFSET)) >> 12;
}

/** Whether the hart must stop before the instruction at PC, whose page has a breakpoint. */
export function breaksHere(): bool {
  const pc = load<u64>(PC);
  const count = load<u32>(BREAKPOINTS);
  for (let i: u32 = 0; i < count; i++) {
    if (load<u64>(BREAKPOINT_LIST + i * 8) == pc) return isNew(REPORTED, load<u64>(INSTRET) + 1);
  }
  return false;
}

/** Whether the hart must stop before an access of `bytes` bytes of RAM: if so, its instruction has not happened, and the caller returns RESUME. */
@inline
export function watched(host: usize, bytes: u32, kinds: u32): bool {
  return load<u32>(WATCHPOINTS) != 0 && touches(host, bytes, kinds);
}

function touches(host: usize, bytes: u32, kinds: u32): bool {
  const count = load<u32>(WATCHPOINTS);
  for (let i: u32 = 0; i < count; i++) {
    const watch: usize = WATCHPOINT_LIST + i * 16;
    const first: usize = load<u32>(watch);
    if (!(load<u32>(watch, 8) & kinds) || host > <usize>load<u32>(watch, 4) || host + bytes <= first) continue;
    if (!isNew(REPORTED_WATCH, load<u64>(INSTRET) + load<u32>(CHUNK) - load<u32>(LEFT))) return false;
    store<u32>(WATCH_HIT, i + 1);
    store<u32>(WATCH_ADDRESS, <u32>max(host, first));
    store<u32>(CHUNK, load<u32>(CHUNK) - 1);
    return true;
  }
  return false;
}

/** Whether the hart's `instruction`th has not been reported; from now on it has. */
function isNew(reported: usize, instruction: u64): bool {
  const last = reported + load<u32>(HART) * 8;
  if (load<u64>(last) == instruction) return false;
  store<u64>(last, instruction);
  return true;
}

/** After the lists have changed: marks, and unmarks, what the TLBs hold. */
export function markTlbs(): void {
  forgetJumps();
  for (let hart: u32 = 0; hart < load<u32>(HARTS); hart++) {
    for (let at: u32 = 0; at < <u32>TLB_TABLES * TLB_STORE; at += 16) {
      const entry: usize = TLBS + hart * TLB_BYTES + at;
      const held = load<u64>(entry);
      if (held == <u64>-1) continue;
      const page = held & PAGE_MASK;
      store<u64>(entry, page | (at >= <u32>TLB_FETCH ? codeMark(page) : dataMark(<u32>page + load<u32>(entry, 8))));
    }
  }
}
