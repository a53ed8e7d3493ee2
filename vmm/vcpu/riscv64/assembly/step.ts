// One instruction that the interpreter's loop does not do itself: an undecoded slot, a missed TLB, an atomic, a CSR, a float, a trap. Undecoded slots and
// straddling instructions only become executable; everything else is executed, and SLOT moves past it.
import { CONTINUE, RESUME } from "../../engine/assembly/isa";
import { LEFT, PAGE_BASE, SLOT, TRANSLATED, UNDECODED } from "../../engine/assembly/layout";
import { runTranslated } from "../../engine/assembly/translated";
import { executeAtomic } from "./atomic";
import { executeCsr, UNDEFINED } from "./csr";
import { fillSlot, instructionAt, straddle } from "./fill-slot";
import { executeFloat } from "./float-instructions";
import { carrylessMultiply } from "./integer";
import { SSTATUS, X } from "./layout";
import { loadAway, slowAccess } from "./memory-instructions";
import {
  AMO, CBO, CLMUL, CLMULH, CLMULR, CSR, FENCE_I, FLD, FLH, FLOAT, FLW, FSD, FSH, FSW, ILLEGAL, LOAD_X0, STRADDLE, SYSTEM,
} from "./opcodes";
import { executeCacheBlock, executeSystem, fenceInstructions } from "./system";
import { Rv64 } from "./rv64";
import { SSTATUS_FS } from "./translate";
import { trap } from "./traps";

/** Before an instruction of F, D or Zfhmin: false if sstatus.FS is Off; else FS becomes Dirty. */
function openFloats(): bool {
  const status = load<u64>(SSTATUS);
  if (!(status & SSTATUS_FS)) return false;
  store<u64>(SSTATUS, status | SSTATUS_FS);
  return true;
}

/** Floats come in runs: executes those that follow, so that only the first pays for leaving the loop. */
function floats(slot: usize): u32 {
  let left = load<u32>(LEFT);
  while (left && load<u16>(slot) == FLOAT && executeFloat(load<u32>(slot, 4))) {
    slot += 16;
    left--;
  }
  store<u32>(LEFT, left);
  store<u32>(SLOT, slot);
  return CONTINUE;
}

/** Executes the instruction at SLOT, PC. Returns CONTINUE (SLOT is the next), RESUME (PC is where to go on) or LEAVE + EXIT_. */
export function step(): u32 {
  const slot: usize = load<u32>(SLOT);
  const operation = <i32>load<u16>(slot) & 0xfffe;
  const length: u32 = load<u16>(slot) & 1 ? 2 : 4;
  const code = load<u32>(slot, 4);
  let result = UNDEFINED;
  switch (operation) {
    case UNDECODED:
      store<u32>(LEFT, load<u32>(LEFT) + 1);
      fillSlot(slot, load<u32>(PAGE_BASE));
      return CONTINUE;
    case STRADDLE: {
      const second = straddle(load<u32>(PAGE_BASE));
      if (second == 0) return RESUME;
      store<u32>(LEFT, load<u32>(LEFT) + 1);
      store<u32>(SLOT, second);
      return CONTINUE;
    }
    case TRANSLATED:
      return runTranslated<Rv64>(slot, load<u32>(LEFT) + 1);
    case ILLEGAL:
      break;
    case LOAD_X0: result = loadAway(code); break;
    case AMO: result = executeAtomic(code); break;
    case CSR: result = executeCsr(code, load<u32>(LEFT)); break;
    case SYSTEM: result = executeSystem(code, load<u32>(LEFT), length); break;
    case CBO: result = executeCacheBlock(code); break;
    case FENCE_I: result = fenceInstructions(); break;
    case FLOAT:
      if (openFloats() && executeFloat(code)) return floats(slot + 16);
      break;
    case FLH: case FLW: case FLD: case FSH: case FSW: case FSD:
      if (!openFloats()) break;
      result = slowAccess(slot);
      break;
    case CLMUL: case CLMULH: case CLMULR: {
      const rs1 = load<u64>(<usize>load<u8>(slot, 3), X);
      const rs2 = load<u64>(<usize>load<u8>(slot, 4), X);
      store<u64>(<usize>load<u8>(slot, 2), carrylessMultiply(operation, rs1, rs2), X);
      result = CONTINUE;
      break;
    }
    default: // integer loads and stores
      result = slowAccess(slot);
      break;
  }
  if (result == CONTINUE) store<u32>(SLOT, <u32>slot + (length << 2));
  else if (result == UNDEFINED) {
    trap(2, instructionAt(slot, load<u32>(PAGE_BASE)));
    return RESUME;
  }
  return result;
}
