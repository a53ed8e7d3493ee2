/* Finds the machine's parts in the flattened device tree (Devicetree Specification 0.4, chapter 5): nodes by `compatible`, all of them
   children of nodes with two address and two size cells. */
#include "guest.h"

struct platform platform;

static uint32_t big32(const void *at) {
  const uint8_t *byte = at;
  return (uint32_t)byte[0] << 24 | (uint32_t)byte[1] << 16 | (uint32_t)byte[2] << 8 | byte[3];
}
static uint64_t big64(const void *at) {
  return (uint64_t)big32(at) << 32 | big32((const uint8_t *)at + 4);
}
static int same_text(const char *a, const char *b) {
  while (*a != 0 && *a == *b) a++, b++;
  return *a == *b;
}

enum { BEGIN_NODE = 1, END_NODE = 2, PROPERTY = 3, NOP = 4, END = 9, DEEPEST = 8 };

/* What is known of the node being read; complete at its end or at its first child. */
struct node {
  const char *compatible, *device_type;
  const uint8_t *reg, *ranges, *identity, *iommu_map;
  uint32_t ranges_length, iommu_map_length, phandle;
};

static void take(const struct node *node) {
  if (node->reg == NULL) return;
  uint64_t base = big64(node->reg), size = big64(node->reg + 8);
  if (node->device_type != NULL && same_text(node->device_type, "memory")) {
    platform.ram_base = base;
    platform.ram_size = size;
  }
  if (node->compatible == NULL) return;
  if (same_text(node->compatible, "riscv,iommu")) {
    check(platform.iommu_count < MOST_IOMMUS, "room for an IOMMU");
    platform.iommus[platform.iommu_count++] = (struct iommu_node){.base = base, .phandle = node->phandle};
    if (node->identity != NULL) {
      platform.identity_base = big64(node->identity);
      platform.identity_size = big64(node->identity + 8);
    }
  } else if (same_text(node->compatible, "riscv,imsics")) {
    platform.imsic = base;
  } else if (same_text(node->compatible, "pci-host-ecam-generic")) {
    platform.ecam = base;
    platform.ecam_size = size;
    platform.iommu_map = node->iommu_map;
    platform.iommu_map_length = node->iommu_map_length;
    /* ranges: three cells PCI address, two of the CPU's, two of size; space code 2 is 32-bit memory. */
    for (uint32_t at = 0; node->ranges != NULL && at + 28 <= node->ranges_length; at += 28) {
      if ((big32(node->ranges + at) >> 24 & 3) != 2) continue;
      platform.bar_window = big64(node->ranges + at + 12);
      platform.bar_window_size = big64(node->ranges + at + 20);
    }
  }
}

/* iommu-map: first requester id, phandle, first id at that IOMMU, how many (the PCI-IOMMU binding). Ids are not renumbered here. */
int iommu_of(uint32_t requester_id) {
  for (uint32_t at = 0; at + 16 <= platform.iommu_map_length; at += 16) {
    const uint8_t *entry = platform.iommu_map + at;
    uint32_t first = big32(entry);
    if (requester_id < first || requester_id - first >= big32(entry + 12)) continue;
    check_equal(big32(entry + 8), first, "first id at the IOMMU");
    for (unsigned i = 0; i < platform.iommu_count; i++) {
      if (platform.iommus[i].phandle == big32(entry + 4)) return (int)i;
    }
    fail("iommu-map names no IOMMU");
  }
  return -1;
}

void discover(const void *device_tree) {
  const uint8_t *tree = device_tree;
  check_equal(big32(tree), 0xd00dfeed, "magic number of the device tree");
  const uint8_t *at = tree + big32(tree + 8);
  const char *strings = (const char *)tree + big32(tree + 12);
  struct node open[DEEPEST] = {{0}};
  int depth = 0;
  for (;;) {
    uint32_t token = big32(at);
    at += 4;
    if (token == BEGIN_NODE) {
      while (*at != 0) at++;
      at = (const uint8_t *)(((uintptr_t)at + 4) & ~(uintptr_t)3);
      if (++depth == DEEPEST) fail("the device tree is too deep");
      open[depth] = (struct node){0};
    } else if (token == END_NODE) {
      take(&open[depth--]);
    } else if (token == PROPERTY) {
      uint32_t length = big32(at);
      const char *name = strings + big32(at + 4);
      const uint8_t *value = at + 8;
      struct node *node = &open[depth];
      if (same_text(name, "compatible")) node->compatible = (const char *)value;
      if (same_text(name, "device_type")) node->device_type = (const char *)value;
      if (same_text(name, "reg") && length >= 16) node->reg = value;
      if (same_text(name, "ranges")) node->ranges = value, node->ranges_length = length;
      if (same_text(name, "iommu-map")) node->iommu_map = value, node->iommu_map_length = length;
      if (same_text(name, "phandle") && length == 4) node->phandle = big32(value);
      if (same_text(name, "nestbox,identity-region") && length >= 16) node->identity = value;
      at = value + ((length + 3) & ~3u);
    } else if (token == END) {
      return;
    } else if (token != NOP) {
      fail("the device tree is damaged");
    }
  }
}
