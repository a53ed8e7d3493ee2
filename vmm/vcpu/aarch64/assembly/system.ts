// Exception generating instructions, hints that wait, PSTATE, cache and TLB maintenance (DDI 0487, C5 and D24).
import { refetchInstructions, refetchLine } from "../../engine/assembly/decode-cache";
import { ACCESS_LOAD, ACCESS_STORE, CONTINUE, LEAVE, RESUME } from "../../engine/assembly/isa";
import { EXIT_BUDGET, EXIT_CALL, EXIT_WFI, HARTS, PC, PHYSICAL } from "../../engine/assembly/layout";
import { synchronise } from "../../engine/assembly/time";
import { flushAddressEverywhere, flushAddress, flushAll, flushEverywhere } from "../../engine/assembly/tlb";
import { EC_BRK, EC_DATA_ABORT, EC_SVC, EC_WFX, addressException, exception, pending, returnFromException } from "./exceptions";
import { UNDEFINED } from "./faults";
import { DAIF, EL, MONITOR, PAR_EL1, SCTLR_EL1, UNPRIVILEGED, X } from "./layout";
import { source } from "./slot";
import { executeMrs, executeMsr, next, selectStack, trapSystem } from "./system-registers";
import { translate } from "./translate";

const SCTLR_UMA: u64 = 1 << 9;
const SCTLR_NTWI: u64 = 1 << 16;
const SCTLR_NTWE: u64 = 1 << 18;
const SCTLR_UCI: u64 = 1 << 26;
const ISS_CACHE_MAINTENANCE: u32 = (1 << 8) | (1 << 6);

/** Executes `code` at PC, of which the loop knows nothing. CONTINUE, RESUME, LEAVE + EXIT_, or UNDEFINED. */
export function executeSystem(code: u32, left: u32): u32 {
  if (code >> 24 == 0xd4) return generateException(code);
  if (code == 0xd69f03e0) {
    if (!load<u32>(EL)) return UNDEFINED;
    returnFromException();
    return RESUME;
  }
  if (code >> 22 != 0x354) return UNDEFINED; // 1101 0101 00
  const reads = (code >> 21) & 1;
  switch ((code >> 19) & 3) {
    case 0: return reads ? UNDEFINED : withoutRegister(code, left);
    case 1: return reads ? UNDEFINED : maintain(code);
  }
  return reads ? executeMrs(code, left) : executeMsr(code, left);
}

function generateException(code: u32): u32 {
  const immediate = (code >> 5) & 0xffff;
  switch (code & 0xffe0001f) {
    case 0xd4000001: // SVC: the preferred return address is behind it
      store<u64>(PC, load<u64>(PC) + 4);
      exception(EC_SVC, immediate);
      return RESUME;
    case 0xd4000002: // HVC
      if (!load<u32>(EL)) return UNDEFINED;
      store<u64>(PC, load<u64>(PC) + 4);
      return LEAVE + EXIT_CALL;
    case 0xd4200000:
      exception(EC_BRK, immediate);
      return RESUME;
  }
  return UNDEFINED;
}

/** MSR (immediate), CLREX, WFE, WFI. */
function withoutRegister(code: u32, left: u32): u32 {
  if ((code & 0xfffff01f) == 0xd503201f) return wait((code >> 5) & 127, left);
  if ((code & 0xfffff0ff) == 0xd503305f) {
    store<u64>(MONITOR, <u64>-1);
    return CONTINUE;
  }
  if ((code & 0xfff8f01f) != 0xd500401f) return UNDEFINED;
  const value = (code >> 8) & 15;
  switch ((((code >> 16) & 7) << 3) | ((code >> 5) & 7)) {
    case 0x05:
      if (!load<u32>(EL)) return UNDEFINED;
      selectStack(value & 1);
      return CONTINUE;
    case 0x1e: case 0x1f: // DAIFSet, DAIFClr
      if (!load<u32>(EL) && !(load<u64>(SCTLR_EL1) & SCTLR_UMA)) return trapSystem(code);
      if (code & 0x20) {
        store<u32>(DAIF, load<u32>(DAIF) & ~value);
        return next();
      }
      store<u32>(DAIF, load<u32>(DAIF) | value);
      return CONTINUE;
  }
  return UNDEFINED;
}

/** WFE 2: the CPUs behind have their turn; an event may always be there. WFI 3. */
function wait(hint: u32, left: u32): u32 {
  const may = load<u64>(SCTLR_EL1) & (hint == 3 ? SCTLR_NTWI : SCTLR_NTWE);
  synchronise(left);
  if (hint == 3 && pending()) return next();
  if (!load<u32>(EL) && !may) {
    exception(EC_WFX, 0x1e00000 | (hint == 3 ? 0 : 1));
    return RESUME;
  }
  if (hint != 3 && load<u32>(HARTS) == 1) return next();
  store<u64>(PC, load<u64>(PC) + 4);
  return LEAVE + (hint == 3 ? EXIT_WFI : EXIT_BUDGET);
}

/** SYS: IC, DC, AT, TLBI. */
function maintain(code: u32): u32 {
  const operand = load<u64>(X + source(code));
  const op1 = (code >> 16) & 7;
  const crn = (code >> 12) & 15;
  const crm = (code >> 8) & 15;
  const op2 = (code >> 5) & 7;
  if (crn == 8) return op1 == 0 && load<u32>(EL) ? invalidateTlb(crm, op2, operand) : UNDEFINED;
  if (crn != 7) return UNDEFINED;
  if (op1 == 0) {
    if (!load<u32>(EL)) return UNDEFINED;
    switch ((crm << 3) | op2) {
      case 0x08: case 0x28: // IC IALLUIS, IALLU
        refetchInstructions();
        return next();
      case 0x31: return overVirtualAddress(operand, false); // DC IVAC
      case 0x32: case 0x52: case 0x72: return CONTINUE; // DC ISW, CSW, CISW
      case 0x40: case 0x41: case 0x42: case 0x43: // AT S1E1R, S1E1W, S1E0R, S1E0W
        translateAddress(operand, op2 & 1, op2 >> 1);
        return CONTINUE;
    }
    return UNDEFINED;
  }
  if (op1 != 3 || op2 != 1) return UNDEFINED;
  if (crm != 5 && crm != 10 && crm != 11 && crm != 14) return UNDEFINED; // IC IVAU; DC CVAC, CVAU, CIVAC
  if (!load<u32>(EL) && !(load<u64>(SCTLR_EL1) & SCTLR_UCI)) return trapSystem(code);
  return overVirtualAddress(operand, crm == 5);
}

/** Maintenance by address: faults as a load there does; caches are coherent, so only decoded code has to hear of it. */
function overVirtualAddress(va: u64, code: bool): u32 {
  const fault = translate(va, ACCESS_LOAD);
  if (fault) {
    addressException(EC_DATA_ABORT + load<u32>(EL), (fault & 63) | ISS_CACHE_MAINTENANCE, va);
    return RESUME;
  }
  if (!code) return CONTINUE;
  refetchLine(load<u64>(PHYSICAL));
  return next();
}

function translateAddress(va: u64, write: u32, user: u32): void {
  store<u32>(UNPRIVILEGED, user);
  const fault = translate(va, write ? ACCESS_STORE : ACCESS_LOAD);
  store<u32>(UNPRIVILEGED, 0);
  const physical = load<u64>(PHYSICAL) & 0x000ffffffffff000;
  store<u64>(PAR_EL1, fault ? 0x801 | (<u64>(fault & 63) << 1) : physical | 0xff00000000000b80);
}

/** TLBI of EL1&0; CRm 3 is for all CPUs, 7 for this one. Entries hold no ASID: what names one, or all but one, concerns all of them. */
function invalidateTlb(crm: u32, op2: u32, operand: u64): u32 {
  if (crm != 3 && crm != 7) return UNDEFINED;
  const everywhere = crm == 3 && load<u32>(HARTS) > 1;
  switch (op2) {
    case 0: case 2: // VMALLE1, ASIDE1
      if (everywhere) flushEverywhere();
      else flushAll();
      return next();
    case 1: case 3: case 5: case 7: { // VAE1, VAAE1, VALE1, VAALE1
      const va = <u64>(<i64>(operand << 20) >> 8);
      if (everywhere) flushAddressEverywhere(va);
      else flushAddress(va);
      return next();
    }
  }
  return UNDEFINED;
}
