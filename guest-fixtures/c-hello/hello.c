/* A guest in C without a library: says how much RAM there is and what its IOMMU can do. ../README.md builds it. */
#include "nestbox.h"

static void print(const char *text) {
  u32 length = 0;
  while (text[length] != 0) length++;
  nestbox_write(text, length);
}

static void print_hex(u64 value) {
  char digits[19] = "0x0000000000000000";
  for (int i = 17; i >= 2; i--, value >>= 4) digits[i] = "0123456789abcdef"[value & 15];
  nestbox_write(digits, 18);
}

__attribute__((export_name("run"))) u32 run(void) {
  print("hello from C\nRAM bytes ");
  print_hex(nestbox_size(RAM, 0));
  print("\n");
  if (nestbox_count(IOMMU) == 0) {
    print("no IOMMU here\n");
    return 1;
  }
  print("IOMMU capabilities ");
  print_hex(mmio_read64(nestbox_base(IOMMU, 0)));
  print("\n");
  return 0;
}
