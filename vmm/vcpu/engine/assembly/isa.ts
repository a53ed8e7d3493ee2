// What the engine asks of an instruction set: its front end is a class without instances, handed to the engine's functions as a type parameter
// (`resume<Rv64>(…)`), so that every call below is resolved, and mostly inlined, when the core is compiled.
//
//   class NAME {                                         @unmanaged; every method is called on changetype<NAME>(0)
//     offsetMask(): u32                                  bits of an instruction's offset in its page: 0xffe, 0xffc
//     dataContext(): u32                                 TLB context of loads and stores now: 0, 1, 2
//     fetchContext(): u32                                of fetches: 0, 1
//     translate(va, access): u32                         0 with PHYSICAL and LEAF_BITS set, or a fault's number (the front end's own)
//     fault(number, va, access): void                    takes the exception at PC
//     busError(va, access): void                         the same for an address that translated and that nothing answers at
//     takeInterrupt(): void                              if one is pending and enabled; right after synchronise()
//     untilTimer(): u32                                  instructions until the timer is due, see time.ts
//     switched(): void                                   another hart has become the running one
//     execute(slot, n): u32                              the interpreter's loop: at most n instructions from `slot`, in the page PAGE_VA, PAGE_BASE
//     isAccess(operation): bool                          a slot's first 16 bits are those of a load or store that access() does
//     access(slot): u32                                  does it: it is counted, and PC is its address. CONTINUE, or RESUME as of step()
//     slotBytes(slot): u32                               from a slot to the next instruction's
//     step(): u32                                        the one instruction at SLOT, PC that the loop does not do itself; it is counted already
//   }
//
// PC is always where an instruction can begin: a front end takes its alignment fault when it sets PC. A translated block does the same by leaving.
//
// execute() and step() leave SLOT or PC, and LEFT, as their results say:

/** step(): SLOT is the next instruction. */
export const CONTINUE: u32 = 0;
/** Start again from PC: translation, mode, time or interrupts may have changed. */
export const RESUME: u32 = 1;
/** execute(): the instruction at SLOT and PC is for step(). */
export const STEP: u32 = 3;
/** step(): run() returns to the VMM; + an EXIT_. */
export const LEAVE: u32 = 16;

export const ACCESS_LOAD: u32 = 0;
export const ACCESS_STORE: u32 = 1;
export const ACCESS_FETCH: u32 = 2;

export const PAGE_MASK: u64 = ~0xfff;
