/* Finds edu devices (vendor 1234, device 11e8, QEMU's docs/specs/edu) in PCI configuration space and drives their DMA. */
#include "guest.h"

enum { COMMAND = 4, HEADER = 14, BAR0 = 0x10, CAPABILITIES = 0x34, MEMORY_AND_MASTER = 6 | 1 << 10, MSI = 5 };
enum { INTERRUPT_STATUS = 0x24, ACKNOWLEDGE = 0x64, SOURCE = 0x80, DESTINATION = 0x88, COUNT = 0x90, DMA = 0x98 };
enum { RUN = 1, TO_MEMORY = 2, INTERRUPT = 4, DMA_DONE = 0x100, BUFFER = 0x40000 };

static void place_bar(struct edu *edu) {
  static uint64_t next;
  if (next == 0) next = platform.bar_window;
  write32(edu->config + BAR0, 0xffffffff);
  uint64_t size = (uint64_t)(~(read32(edu->config + BAR0) & ~15u)) + 1;
  next = (next + size - 1) & ~(size - 1);
  check(next + size <= platform.bar_window + platform.bar_window_size, "room for a BAR");
  write32(edu->config + BAR0, (uint32_t)next);
  write16(edu->config + COMMAND, MEMORY_AND_MASTER);
  edu->registers = next;
  next += size;
  check_equal(read32(edu->registers) & 0xffff, 0xed, "identification of an edu device");
}

unsigned find_edu(struct edu *found, unsigned most) {
  unsigned count = 0;
  for (uint32_t id = 0; id < platform.ecam_size >> 12 && count < most; id++) {
    uint64_t config = platform.ecam + ((uint64_t)id << 12);
    if ((id & 7) != 0 && (read8(config - ((uint64_t)(id & 7) << 12) + HEADER) & 0x80) == 0) continue;
    if (read32(config) != 0x11e81234) continue;
    found[count] = (struct edu){.requester_id = id, .config = config};
    place_bar(&found[count++]);
  }
  return count;
}

void edu_enable_msi(const struct edu *edu, uint64_t address, uint32_t data) {
  uint8_t at = read8(edu->config + CAPABILITIES) & 0xfc;
  for (int i = 0; i < 48 && at != 0 && read8(edu->config + at) != MSI; i++) at = read8(edu->config + at + 1) & 0xfc;
  check(at != 0, "an MSI capability");
  uint64_t capability = edu->config + at;
  int wide = (read16(capability + 2) & 0x80) != 0;
  write32(capability + 4, (uint32_t)address);
  if (wide) write32(capability + 8, (uint32_t)(address >> 32));
  write16(capability + (wide ? 12 : 8), (uint16_t)data);
  write16(capability + 2, (uint16_t)((read16(capability + 2) & ~0x70) | 1));
}

void edu_start(const struct edu *edu, int to_memory, uint64_t iova, int interrupt) {
  check(!edu_running(edu), "the device is idle");
  write64(edu->registers + SOURCE, to_memory ? BUFFER : iova);
  write64(edu->registers + DESTINATION, to_memory ? iova : BUFFER);
  write64(edu->registers + COUNT, PAGE);
  write64(edu->registers + DMA, RUN | (to_memory ? TO_MEMORY : 0) | (interrupt ? INTERRUPT : 0));
}

int edu_running(const struct edu *edu) { return (read64(edu->registers + DMA) & RUN) != 0; }

void edu_acknowledge(const struct edu *edu) {
  uint32_t status = read32(edu->registers + INTERRUPT_STATUS);
  check_equal(status & DMA_DONE, DMA_DONE, "interrupt status of an edu device");
  write32(edu->registers + ACKNOWLEDGE, status);
}
