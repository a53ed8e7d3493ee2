/* The hart's S-level interrupt file (AIA chapter 3) by its CSRs: identities are enabled here and taken with stopei, without a trap: sie
   wakes wfi, sstatus.SIE stays 0. The timer wakes it too, so that a message that never comes is a failure and not a hang. */
#include "guest.h"

enum { EIDELIVERY = 0x70, EITHRESHOLD = 0x72, EIE0 = 0xc0 };
enum { SIE_TIMER = 1 << 5, SIE_EXTERNAL = 1 << 9 };
/* Ticks of the 10 MHz timebase: 10 ms. */
enum { PATIENCE = 100000 };

static void write_indirect(uint64_t select, uint64_t set) {
  __asm__ volatile("csrw 0x150, %0\n csrs 0x151, %1" ::"r"(select), "r"(set) : "memory");
}

static uint8_t arrived[256];

void enable_identity(unsigned identity) {
  write_indirect(EITHRESHOLD, 0);
  write_indirect(EIDELIVERY, 1);
  write_indirect(EIE0 + 2 * (identity / 64), 1ull << identity % 64);
  __asm__ volatile("csrs sie, %0" ::"r"((uint64_t)SIE_EXTERNAL));
}

void await_identity(unsigned identity, const char *what) {
  uint64_t start, now, claimed;
  __asm__ volatile("rdtime %0" : "=r"(start));
  __asm__ volatile("csrw 0x14d, %0\n csrs sie, %1" ::"r"(start + PATIENCE), "r"((uint64_t)SIE_TIMER));
  while (!arrived[identity]) {
    __asm__ volatile("wfi" ::: "memory");
    for (;;) {
      __asm__ volatile("csrrw %0, 0x15c, zero" : "=r"(claimed)::"memory");
      if (claimed == 0) break;
      arrived[claimed >> 16 & 255] = 1;
    }
    __asm__ volatile("rdtime %0" : "=r"(now));
    if (now - start >= PATIENCE && !arrived[identity]) fail(what);
  }
  __asm__ volatile("csrw 0x14d, %0" ::"r"(~0ull));
  arrived[identity] = 0;
}
