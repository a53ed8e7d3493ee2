// The privileged instructions and cache-block operations: everything of the SYSTEM opcode but CSR accesses and Zimop, fence.i, Zicbom, Zicboz.
import { refetchInstructions } from "../../engine/assembly/decode-cache";
import { watched } from "../../engine/assembly/debug";
import { ACCESS_LOAD, ACCESS_STORE, CONTINUE, LEAVE, RESUME } from "../../engine/assembly/isa";
import { EXIT_BUDGET, EXIT_CALL, EXIT_WFI, HARTS, PC, WATCH_STORES } from "../../engine/assembly/layout";
import { ramAddress } from "../../engine/assembly/memory-access";
import { synchronise } from "../../engine/assembly/time";
import { flushAddress, flushAll } from "../../engine/assembly/tlb";
import { UNDEFINED } from "./csr";
import { MODE, RESERVATION, SENVCFG, SEPC, SIE, SSTATUS, X } from "./layout";
import { Rv64 } from "./rv64";
import { SSTATUS_SIE, SSTATUS_SPIE, SSTATUS_SPP, translate } from "./translate";
import { pending, trap } from "./traps";

/** PC is the instruction's address; it is moved past the instruction when the result is not UNDEFINED or a trap. */
export function executeSystem(code: u32, left: u32, length: u32): u32 {
  const supervisor = load<u32>(MODE) != 0;
  const pc = load<u64>(PC);
  if (((code >> 7) & 31) != 0) return UNDEFINED;
  switch (code >> 20) {
    case 0x000: // ecall
      if (code != 0x73) return UNDEFINED;
      if (!supervisor) {
        trap(8, 0);
        return RESUME;
      }
      store<u64>(PC, pc + length);
      return LEAVE + EXIT_CALL;
    case 0x001: // ebreak
      if (code != 0x100073) return UNDEFINED;
      trap(3, pc);
      return RESUME;
    case 0x102: // sret
      if (code != 0x10200073 || !supervisor) return UNDEFINED;
      returnFromTrap();
      return RESUME;
    case 0x105: // wfi; in user mode it may trap at once
      if (code != 0x10500073 || !supervisor) return UNDEFINED;
      store<u64>(PC, pc + length);
      synchronise(left);
      return pending() & load<u64>(SIE) ? RESUME : LEAVE + EXIT_WFI;
    case 0x00d: // wrs.nto, wrs.sto
    case 0x01d:
      if (code != 0x00d00073 && code != 0x01d00073) return UNDEFINED;
      return waitOnReservation(pc + length, left);
    case 0x180: // sfence.w.inval, sfence.inval.ir: sinval.vma is ordered already
    case 0x181:
      if ((code != 0x18000073 && code != 0x18100073) || !supervisor) return UNDEFINED;
      return CONTINUE;
  }
  const funct7 = code >> 25;
  if (funct7 == 0x09 || funct7 == 0x0b) { // sfence.vma, sinval.vma
    if (!supervisor) return UNDEFINED;
    const rs1 = (code >> 15) & 31;
    if (rs1) flushAddress(load<u64>(X + rs1 * 8));
    else flushAll();
    store<u64>(PC, pc + length);
    return RESUME;
  }
  return UNDEFINED;
}

/**
 * Zawrs. The stall ends at once unless a reservation is held and nothing is pending; then it ends when another hart may have stored to the reserved
 * word: the rest of this hart's turn is given up, and with it the reservation if another one runs. Neither form can wait for ever.
 */
function waitOnReservation(next: u64, left: u32): u32 {
  if (load<u64>(RESERVATION) == <u64>-1 || load<u32>(HARTS) == 1) return CONTINUE;
  synchronise(left);
  if (pending() & load<u64>(SIE)) return CONTINUE;
  store<u64>(PC, next);
  return LEAVE + EXIT_BUDGET;
}

function returnFromTrap(): void {
  const status = load<u64>(SSTATUS);
  let next = (status & ~(SSTATUS_SIE | SSTATUS_SPP)) | SSTATUS_SPIE;
  if (status & SSTATUS_SPIE) next |= SSTATUS_SIE;
  store<u64>(SSTATUS, next);
  store<u32>(MODE, status & SSTATUS_SPP ? 1 : 0);
  store<u64>(PC, load<u64>(SEPC));
}

/** fence.i at PC, which is moved past it. */
export function fenceInstructions(): u32 {
  refetchInstructions();
  store<u64>(PC, load<u64>(PC) + 4);
  return RESUME;
}

/** cbo.inval 0, cbo.clean 1, cbo.flush 2, cbo.zero 4 on the 64-byte block that holds rs1. Caches are coherent: only cbo.zero does anything. */
export function executeCacheBlock(code: u32): u32 {
  const operation = code >> 20;
  const address = load<u64>(X + ((code >> 15) & 31) * 8);
  if (load<u32>(MODE) == 0) {
    const environment = load<u32>(SENVCFG);
    if (operation == 0 && !(environment & 0x30)) return UNDEFINED;
    if ((operation == 1 || operation == 2) && !(environment & 0x40)) return UNDEFINED;
    if (operation == 4 && !(environment & 0x80)) return UNDEFINED;
  }
  if (operation != 4) {
    // "permitted if a load or a store is"; reported as a store fault
    if (translate(address, ACCESS_LOAD)) {
      const fault = translate(address, ACCESS_STORE);
      if (fault) {
        trap(fault, address);
        return RESUME;
      }
    }
    return CONTINUE;
  }
  const host = ramAddress<Rv64>(address, ACCESS_STORE);
  if (host == 0 || watched(host & ~63, 64, WATCH_STORES)) return RESUME;
  memory.fill(host & ~63, 0, 64);
  return CONTINUE;
}
