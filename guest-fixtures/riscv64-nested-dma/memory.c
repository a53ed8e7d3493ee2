/* Page frames behind the image, and patterns in them. */
#include "guest.h"

extern uint8_t free_pages[];
static uint8_t *next = free_pages;

void *allocate_page(void) {
  check((uint64_t)next + PAGE + 0x400000 < platform.ram_base + platform.ram_size, "page frames left");
  uint64_t *page = (uint64_t *)next;
  next += PAGE;
  for (int i = 0; i < PAGE / 8; i++) page[i] = 0;
  return page;
}

void fill_pattern(void *page, uint32_t seed) {
  uint32_t state = seed * 2654435761u + 1;
  for (int i = 0; i < PAGE / 4; i++) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    ((volatile uint32_t *)page)[i] = state;
  }
}

int same_page(const void *a, const void *b) {
  for (int i = 0; i < PAGE / 8; i++) {
    if (((const volatile uint64_t *)a)[i] != ((const volatile uint64_t *)b)[i]) return 0;
  }
  return 1;
}

/* The compiler may call these even in a freestanding program. */
void *memset(void *to, int value, size_t length) {
  for (volatile uint8_t *at = to; length > 0; length--) *at++ = (uint8_t)value;
  return to;
}
void *memcpy(void *to, const void *from, size_t length) {
  volatile uint8_t *at = to;
  for (const uint8_t *source = from; length > 0; length--) *at++ = *source++;
  return to;
}
