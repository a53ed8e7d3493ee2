/* Console and end of the run through the SBI: debug console (DBCN) and system reset (SRST). */
#include "guest.h"

static long sbi(long extension, long function, long a, long b, long c) {
  register long a0 __asm__("a0") = a;
  register long a1 __asm__("a1") = b;
  register long a2 __asm__("a2") = c;
  register long a6 __asm__("a6") = function;
  register long a7 __asm__("a7") = extension;
  __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a2), "r"(a6), "r"(a7) : "memory");
  return a0 < 0 ? a0 : a1;
}

static void print_bytes(const char *bytes, long length) {
  while (length > 0) {
    long written = sbi(0x4442434e, 0, length, (long)bytes, 0);
    if (written <= 0) return;
    bytes += written;
    length -= written;
  }
}

void print(const char *text) {
  long length = 0;
  while (text[length] != 0) length++;
  print_bytes(text, length);
}

static void print_base(uint64_t value, unsigned base) {
  char digits[20];
  unsigned at = sizeof digits;
  do digits[--at] = "0123456789abcdef"[value % base];
  while ((value /= base) != 0);
  print_bytes(digits + at, sizeof digits - at);
}

void print_hex(uint64_t value) {
  print("0x");
  print_base(value, 16);
}

void print_number(uint64_t value) { print_base(value, 10); }

_Noreturn void finish(int failed) {
  /* Shutdown; reason 1 is "system failure". */
  sbi(0x53525354, 0, 0, failed, 0);
  for (;;) __asm__ volatile("wfi");
}

_Noreturn void fail(const char *what) {
  print("FAILED: ");
  print(what);
  print("\n");
  finish(1);
}

void check(int holds, const char *what) {
  if (holds) return;
  print("FAILED: expected ");
  print(what);
  print("\n");
  finish(1);
}

void check_equal(uint64_t actual, uint64_t expected, const char *what) {
  if (actual == expected) return;
  print("FAILED: ");
  print(what);
  print(" is ");
  print_hex(actual);
  print(", not ");
  print_hex(expected);
  print("\n");
  finish(1);
}

_Noreturn void guest_trapped(uint64_t cause, uint64_t pc, uint64_t value) {
  print("FAILED: trap, scause ");
  print_hex(cause);
  print(", sepc ");
  print_hex(pc);
  print(", stval ");
  print_hex(value);
  print("\n");
  finish(1);
}
