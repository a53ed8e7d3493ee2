# Entered in S-mode with satp = 0: a0 = hart id, a1 = device tree. BSS is zero: the loader leaves it so.
  .section .text.start
  .globl _start
_start:
  la sp, stack_top
  la t0, trapped
  csrw stvec, t0
  csrw sie, zero
  tail guest_main

# No trap is expected: interrupts are taken by polling. Says cause, address and value, and ends the run.
  .balign 4
trapped:
  la sp, stack_top
  csrr a0, scause
  csrr a1, sepc
  csrr a2, stval
  tail guest_trapped
