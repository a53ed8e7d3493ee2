/* The nested-dma story on a bare-metal RV64 hart: copy, remap, unmap, faults, messages; a line a step. The component guest of
   ../nested-dma tells it in full. On a machine with a second IOMMU a device behind that one follows, with the first one's PSCID and IOVAs. */
#include "guest.h"

enum { FAULT_IDENTITY = 2, DEVICE_IDENTITY = 3, SECOND_FAULT_IDENTITY = 4, PSCID = 1, MOST_DEVICES = 4 };
enum { TTYP_READ = 2, TTYP_WRITE = 3 };

static const uint64_t SOURCE = 0x1234567000, TARGET = 0x2345678000, OUTSIDE = 0x3456789000;

static struct edu device;

static void move(int to_memory, uint64_t iova) {
  edu_start(&device, to_memory, iova, 1);
  await_identity(DEVICE_IDENTITY, "the device's message never came");
  edu_acknowledge(&device);
}

static unsigned fault_identity = FAULT_IDENTITY;

static void expect_fault(uint32_t cause, uint64_t iova, uint32_t transaction) {
  struct fault fault;
  await_identity(fault_identity, "the fault queue's message never came");
  check(iommu_take_fault(&fault), "a fault record");
  check_equal(fault.cause, cause, "cause of the fault record");
  check_equal(fault.device_id, device.requester_id, "device id of the fault record");
  check_equal(fault.transaction, transaction, "transaction type of the fault record");
  check_equal(fault.iotval, iova, "iotval of the fault record");
  check_equal(fault.iotval2, 0, "iotval2 of the fault record");
  print(" cause ");
  print_number(fault.cause);
  print(" at IOVA ");
  print_hex(fault.iotval);
}

static void print_units(void) {
  for (unsigned i = 0; i < platform.iommu_count; i++) {
    print(i == 0 ? "IOMMU at " : ", second IOMMU at ");
    print_hex(platform.iommus[i].base);
  }
}

/* The first device is blocked by now; its IOMMU still holds what it translated under the same PSCID. */
static void second_iommu(const struct edu *found, unsigned count, uint64_t *first_root) {
  const struct edu first = device;
  int there = 0;
  for (unsigned i = 0; i < count && !there; i++) {
    if (iommu_of(found[i].requester_id) != 1) continue;
    device = found[i];
    there = 1;
  }
  check(there, "an edu device behind the second IOMMU");
  uint64_t *root = allocate_page(), *source = allocate_page(), *target = allocate_page();
  uint64_t *first_source = allocate_page();
  fill_pattern(source, 3);
  fill_pattern(first_source, 4);
  sv39_map(root, SOURCE, (uint64_t)source, READ);
  sv39_map(root, TARGET, (uint64_t)target, READ_WRITE);
  sv39_map(root, platform.imsic, platform.imsic, READ_WRITE);
  sv39_map_identity(root, platform.identity_base, platform.identity_size);
  edu_enable_msi(&device, platform.imsic, DEVICE_IDENTITY);
  enable_identity(SECOND_FAULT_IDENTITY);
  iommu_select(1);
  fault_identity = SECOND_FAULT_IDENTITY;
  iommu_enable(SECOND_FAULT_IDENTITY);
  print("second:");
  edu_start(&device, 0, SOURCE, 0);
  while (edu_running(&device)) {
  }
  expect_fault(258, SOURCE, TTYP_READ);
  iommu_set_context(device.requester_id, 1, PSCID, root);
  iommu_fence();
  move(0, SOURCE);
  move(1, TARGET);
  check(same_page(target, source), "the page copied behind the second IOMMU equals its source");

  /* The same IOVA, PSCID and moment: each through its own IOMMU. */
  iommu_select(0);
  sv39_map(first_root, SOURCE, (uint64_t)first_source, READ);
  iommu_invalidate_page(PSCID, SOURCE);
  iommu_set_context(first.requester_id, 1, PSCID, first_root);
  iommu_fence();
  struct edu second = device;
  device = first;
  move(0, SOURCE);
  sv39_map(first_root, TARGET, (uint64_t)first_source, READ_WRITE);
  iommu_invalidate_page(PSCID, TARGET);
  iommu_fence();
  fill_pattern(first_source, 5);
  move(1, TARGET);
  fill_pattern(target, 4);
  check(same_page(first_source, target), "the page copied behind the first IOMMU meanwhile");

  /* An invalidation at one IOMMU is none at the other: the second may go on with what it cached, and must not once told itself. */
  device = second;
  sv39_unmap(root, SOURCE);
  iommu_select(1);
  iommu_invalidate_page(PSCID, SOURCE);
  iommu_fence();
  move(0, SOURCE);
  expect_fault(13, SOURCE, TTYP_READ);
  struct fault none;
  iommu_select(0);
  check(!iommu_take_fault(&none), "no fault of the second's in the first's queue");
  print("; device ");
  print_hex(device.requester_id);
  print(" has its own IOMMU\n");
}

_Noreturn void guest_main(uint64_t hart, const void *device_tree) {
  (void)hart;
  discover(device_tree);
  check(platform.iommu_count != 0 && platform.ecam != 0 && platform.imsic != 0, "an IOMMU, PCI and an interrupt file");
  print("platform: RAM ");
  print_number(platform.ram_size >> 20);
  print(" MiB, ");
  print_units();
  print(", PCI configuration at ");
  print_hex(platform.ecam);
  print("\n");

  struct edu found[MOST_DEVICES];
  unsigned count = find_edu(found, MOST_DEVICES), chosen = 0;
  while (chosen < count && iommu_of(found[chosen].requester_id) != 0) chosen++;
  check(chosen < count, "an edu device behind the first IOMMU");
  device = found[chosen];
  uint64_t *root = allocate_page(), *source = allocate_page(), *other = allocate_page(), *target = allocate_page();
  fill_pattern(source, 1);
  fill_pattern(other, 2);
  sv39_map(root, SOURCE, (uint64_t)source, READ);
  sv39_map(root, TARGET, (uint64_t)target, READ_WRITE);
  sv39_map(root, platform.imsic, platform.imsic, READ_WRITE);
  sv39_map_identity(root, platform.identity_base, platform.identity_size);
  enable_identity(FAULT_IDENTITY);
  enable_identity(DEVICE_IDENTITY);
  edu_enable_msi(&device, platform.imsic, DEVICE_IDENTITY);
  iommu_enable(FAULT_IDENTITY);
  iommu_set_context(device.requester_id, 1, PSCID, root);
  iommu_fence();
  print("iommu: on, edu is device ");
  print_hex(device.requester_id);
  print("\n");

  move(0, SOURCE);
  move(1, TARGET);
  check(same_page(target, source), "the copied page equals its source");
  print("copy: a page moved from IOVA ");
  print_hex(SOURCE);
  print(" to IOVA ");
  print_hex(TARGET);
  print("\n");

  sv39_map(root, SOURCE, (uint64_t)other, READ);
  iommu_invalidate_page(PSCID, SOURCE);
  iommu_fence();
  move(0, SOURCE);
  move(1, TARGET);
  check(same_page(target, other), "after IOTINVAL and IOFENCE the new page is seen");
  print("remap: after IOTINVAL and IOFENCE the new page was seen\n");

  sv39_unmap(root, SOURCE);
  sv39_unmap(root, TARGET);
  iommu_invalidate_page(PSCID, SOURCE);
  iommu_invalidate_page(PSCID, TARGET);
  iommu_fence();
  print("unmap:");
  move(0, SOURCE);
  expect_fault(13, SOURCE, TTYP_READ);
  move(1, TARGET);
  expect_fault(15, TARGET, TTYP_WRITE);
  check(same_page(target, other), "an unmapped page is not written");
  print("\n");

  sv39_map(root, OUTSIDE, platform.ram_base + platform.ram_size + 0x100000, READ_WRITE);
  print("outside:");
  move(0, OUTSIDE);
  expect_fault(5, OUTSIDE, TTYP_READ);
  move(1, OUTSIDE);
  expect_fault(7, OUTSIDE, TTYP_WRITE);
  print("\n");

  iommu_set_context(device.requester_id, 0, 0, NULL);
  iommu_fence();
  print("context:");
  edu_start(&device, 0, TARGET, 0);
  while (edu_running(&device)) {
  }
  expect_fault(258, TARGET, TTYP_READ);
  print("\n");
  if (platform.iommu_count > 1) second_iommu(found, count, root);
  print("done: all steps hold\n");
  finish(0);
}
