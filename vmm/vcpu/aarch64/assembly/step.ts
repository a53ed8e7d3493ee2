// One instruction that the interpreter's loop does not do itself: an undecoded slot, a missed TLB, an exclusive, a system instruction, an exception. An
// undecoded slot only becomes executable; everything else is executed, and SLOT moves past it.
import { CONTINUE, RESUME } from "../../engine/assembly/isa";
import { LEFT, PAGE_BASE, PC, SLOT, TRANSLATED, UNDECODED } from "../../engine/assembly/layout";
import { runTranslated } from "../../engine/assembly/translated";
import { AArch64 } from "./aarch64";
import { EC_UNKNOWN, exception, goTo } from "./exceptions";
import { executeCrc } from "./crc";
import { executeExclusive } from "./exclusive";
import { UNDEFINED } from "./faults";
import { fillSlot } from "./fill-slot";
import { X } from "./layout";
import { slowAccess } from "./memory-instructions";
import { BLR, BR, ILLEGAL, MRS_EL1, RAW } from "./opcodes";
import { executeSimd } from "./simd";
import { executeSimdMemory } from "./simd-memory";
import { executeSystem } from "./system";
import { openFloats } from "./system-registers";

/** Executes the instruction at SLOT, PC. Returns CONTINUE (SLOT is the next), RESUME (PC is where to go on) or LEAVE + EXIT_. */
export function step(): u32 {
  const slot: usize = load<u32>(SLOT);
  let result = UNDEFINED;
  switch (<i32>load<u16>(slot)) {
    case UNDECODED:
      store<u32>(LEFT, load<u32>(LEFT) + 1);
      fillSlot(slot, load<u32>(PAGE_BASE));
      return CONTINUE;
    case TRANSLATED: return runTranslated<AArch64>(slot, load<u32>(LEFT) + 1);
    case ILLEGAL: break;
    case BR:
      goTo(load<u64>(<usize>X + <usize>load<u16>(slot, 4)));
      return RESUME;
    case BLR: {
      const to = load<u64>(<usize>X + <usize>load<u16>(slot, 4));
      store<u64>(X + 30 * 8, load<u64>(PC) + 4);
      goTo(to);
      return RESUME;
    }
    case MRS_EL1: result = executeSystem(load<u32>(slot, 12), load<u32>(LEFT)); break;
    case RAW: result = executeRaw(load<u32>(slot, 8)); break;
    default: result = slowAccess(slot);
  }
  if (result == CONTINUE) store<u32>(SLOT, <u32>slot + 16);
  else if (result == UNDEFINED) {
    exception(EC_UNKNOWN, 0);
    return RESUME;
  }
  return result;
}

/** An instruction that has no slot form. */
function executeRaw(code: u32): u32 {
  if ((code & 0x3f000000) == 0x08000000) return executeExclusive(code);
  if ((code & 0x0c000000) == 0x0c000000) return withFloats(code);
  if ((code & 0x5fe0e000) == 0x1ac04000) return executeCrc(code);
  return executeSystem(code, load<u32>(LEFT));
}

/** Floating point and Advanced SIMD: data processing (bit 25 set), loads and stores. */
function withFloats(code: u32): u32 {
  const open = openFloats();
  if (open != CONTINUE) return open;
  return (code >> 25) & 1 ? executeSimd(code) : executeSimdMemory(code);
}
