/* RISC-V IOMMU driver (specification 1.0, §§ of version 20260222): three-level device directory, command queue, fault queue with messages,
   Sv39 first stages (privileged specification §4.4). */
#include "guest.h"

enum { CAPABILITIES = 0, FCTL = 8, DDTP = 16, CQB = 24, CQH = 32, CQT = 36, FQB = 40, FQH = 48, FQT = 52 };
enum { CQCSR = 72, FQCSR = 76, IPSR = 84, ICVEC = 760, MSI_CFG_TBL = 768 };
enum { ENABLE = 3, ON = 1 << 16, COMMAND_ERRORS = 0x700, FAULT_ERRORS = 0x300, PATIENCE = 1000000 };
enum { COMMANDS = 256, RECORDS = 128 };

static struct unit {
  uint64_t *directory;
  volatile uint64_t *commands, *records;
  uint32_t tail;
  int extended;
} units[MOST_IOMMUS], *unit = units;

static uint64_t base(void) { return platform.iommus[unit - units].base; }

void iommu_select(unsigned index) {
  check(index < platform.iommu_count, "an IOMMU of that number");
  unit = units + index;
}

static uint64_t frame(const volatile void *page) { return (uint64_t)page >> 12; }

static void command(uint64_t word0, uint64_t word1) {
  uint32_t next = (unit->tail + 1) % COMMANDS;
  for (int i = 0; read32(base() + CQH) == next; i++) check(i < PATIENCE, "room in the command queue");
  unit->commands[2 * unit->tail] = word0;
  unit->commands[2 * unit->tail + 1] = word1;
  unit->tail = next;
  write32(base() + CQT, unit->tail);
}

static void enable_queue(unsigned place, unsigned csr, const volatile void *queue, unsigned log2_size) {
  write64(base() + place, frame(queue) << 10 | (log2_size - 1));
  write32(base() + csr, ENABLE);
  for (int i = 0; (read32(base() + csr) & ON) == 0; i++) check(i < PATIENCE, "a queue that comes on");
}

static void set_mode(unsigned mode) {
  write64(base() + DDTP, frame(unit->directory) << 10 | mode);
  for (int i = 0; (read64(base() + DDTP) & 1 << 4) != 0; i++) check(i < PATIENCE, "ddtp that is not busy");
  check_equal(read64(base() + DDTP) & 15, mode, "ddtp.iommu_mode");
}

void iommu_enable(unsigned fault_identity) {
  uint64_t capabilities = read64(base() + CAPABILITIES);
  check_equal(capabilities & 0xff, 0x10, "version of the IOMMU");
  check((capabilities >> 9 & 1) != 0, "Sv39");
  check((capabilities >> 28 & 3) != 1, "an IOMMU with messages");
  unit->extended = capabilities >> 22 & 1;
  unit->directory = allocate_page();
  unit->commands = allocate_page();
  unit->records = allocate_page();
  set_mode(0);
  write32(base() + FCTL, read32(base() + FCTL) & ~2u);
  write64(base() + ICVEC, 0);
  write64(base() + MSI_CFG_TBL, platform.imsic);
  write32(base() + MSI_CFG_TBL + 8, fault_identity);
  write32(base() + MSI_CFG_TBL + 12, 0);
  enable_queue(CQB, CQCSR, unit->commands, 8);
  write32(base() + CQT, unit->tail = 0);
  write32(base() + FQH, 0);
  enable_queue(FQB, FQCSR, unit->records, 7);
  set_mode(4);
  command(3, 0);
  command(1, 0);
  iommu_fence();
}

static uint64_t *next_table(uint64_t *entry) {
  if ((*entry & 1) == 0) *entry = frame(allocate_page()) << 10 | 1;
  return (uint64_t *)((*entry >> 10 & 0xfffffffffff) << 12);
}

void iommu_set_context(uint32_t device_id, int valid, uint32_t pscid, const uint64_t *root) {
  unsigned leaf_bits = unit->extended ? 6 : 7;
  uint64_t *table = next_table(&unit->directory[device_id >> (leaf_bits + 9) & 511]);
  table = next_table(&table[device_id >> leaf_bits & 511]);
  volatile uint64_t *context = table + (device_id & ((1u << leaf_bits) - 1)) * (unit->extended ? 8 : 4);
  context[0] = 0;
  context[1] = 0;
  context[2] = (uint64_t)pscid << 12;
  context[3] = root == NULL ? 0 : 8ull << 60 | frame(root);
  barrier();
  context[0] = valid != 0;
  command(3 | 1ull << 33 | (uint64_t)device_id << 40, 0);
}

void iommu_invalidate_page(uint32_t pscid, uint64_t iova) {
  command(1 | 1 << 10 | (uint64_t)pscid << 12 | 1ull << 32, iova >> 12 << 10);
}

void iommu_fence(void) {
  command(2 | 1 << 12 | 1 << 13, 0);
  for (int i = 0; read32(base() + CQH) != unit->tail; i++) {
    check((read32(base() + CQCSR) & COMMAND_ERRORS) == 0, "a command queue without errors");
    check(i < PATIENCE, "an IOFENCE that completes");
  }
}

int iommu_take_fault(struct fault *fault) {
  write32(base() + IPSR, 2);
  uint32_t head = read32(base() + FQH);
  if (head == read32(base() + FQT)) return 0;
  check((read32(base() + FQCSR) & FAULT_ERRORS) == 0, "a fault queue that lost nothing");
  volatile uint64_t *record = unit->records + 4 * head;
  *fault = (struct fault){
      .cause = record[0] & 0xfff,
      .transaction = record[0] >> 34 & 63,
      .device_id = (uint32_t)(record[0] >> 40),
      .iotval = record[2],
      .iotval2 = record[3],
  };
  write32(base() + FQH, (head + 1) % RECORDS);
  return 1;
}

static uint64_t *leaf(uint64_t *root, uint64_t iova) {
  for (int level = 2; level > 0; level--) root = next_table(&root[iova >> (12 + 9 * level) & 511]);
  return &root[iova >> 12 & 511];
}

void sv39_map(uint64_t *root, uint64_t iova, uint64_t gpa, uint64_t rights) {
  enum { VALID = 1, USER = 1 << 4, ACCESSED = 1 << 6, DIRTY = 1 << 7 };
  *leaf(root, iova) = gpa >> 12 << 10 | rights | VALID | USER | ACCESSED | DIRTY;
}

void sv39_map_identity(uint64_t *root, uint64_t base, uint64_t size) {
  for (uint64_t at = 0; at < size; at += PAGE) sv39_map(root, base + at, base + at, READ_WRITE);
}

void sv39_unmap(uint64_t *root, uint64_t iova) { *leaf(root, iova) = 0; }
