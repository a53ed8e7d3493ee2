/* A bare-metal RV64 guest: what its parts share. Memory is identity (satp = 0): a pointer is a guest-physical address. */
#ifndef GUEST_H
#define GUEST_H
#include <stddef.h>
#include <stdint.h>

enum { PAGE = 4096 };

/* console.c: SBI debug console and system reset. */
void print(const char *text);
void print_hex(uint64_t value);
void print_number(uint64_t value);
_Noreturn void finish(int failed);
_Noreturn void fail(const char *what);
void check(int holds, const char *what);
void check_equal(uint64_t actual, uint64_t expected, const char *what);

/* platform.c: what the device tree says. */
enum { MOST_IOMMUS = 4 };
struct platform {
  uint64_t ram_base, ram_size;
  struct iommu_node {
    uint64_t base;
    uint32_t phandle;
  } iommus[MOST_IOMMUS];
  unsigned iommu_count;
  const uint8_t *iommu_map;
  uint32_t iommu_map_length;
  uint64_t ecam, ecam_size;
  uint64_t bar_window, bar_window_size;
  uint64_t imsic;
  uint64_t identity_base, identity_size;
};
extern struct platform platform;
void discover(const void *device_tree);
/* Index of the IOMMU that a requester id is behind, -1 none. */
int iommu_of(uint32_t requester_id);

/* memory.c */
void *allocate_page(void);
void fill_pattern(void *page, uint32_t seed);
int same_page(const void *a, const void *b);

/* imsic.c: the hart's interrupt file. */
void enable_identity(unsigned identity);
void await_identity(unsigned identity, const char *what);

/* pci-edu.c */
struct edu {
  uint32_t requester_id;
  uint64_t config, registers;
};
unsigned find_edu(struct edu *found, unsigned most);
void edu_enable_msi(const struct edu *edu, uint64_t address, uint32_t data);
void edu_start(const struct edu *edu, int to_memory, uint64_t iova, int interrupt);
int edu_running(const struct edu *edu);
void edu_acknowledge(const struct edu *edu);

/* iommu.c: RISC-V IOMMUs with Sv39 first stages. What follows iommu_select is about that one; the first is selected at the start. */
enum { READ = 1 << 1, READ_WRITE = 3 << 1 };
struct fault {
  uint32_t cause, device_id, transaction;
  uint64_t iotval, iotval2;
};
void iommu_select(unsigned index);
void iommu_enable(unsigned fault_identity);
void iommu_set_context(uint32_t device_id, int valid, uint32_t pscid, const uint64_t *root);
void iommu_invalidate_page(uint32_t pscid, uint64_t iova);
void iommu_fence(void);
int iommu_take_fault(struct fault *fault);
void sv39_map(uint64_t *root, uint64_t iova, uint64_t gpa, uint64_t rights);
void sv39_map_identity(uint64_t *root, uint64_t base, uint64_t size);
void sv39_unmap(uint64_t *root, uint64_t iova);

static inline uint32_t read32(uint64_t address) { return *(volatile uint32_t *)address; }
static inline uint64_t read64(uint64_t address) { return *(volatile uint64_t *)address; }
static inline uint16_t read16(uint64_t address) { return *(volatile uint16_t *)address; }
static inline uint8_t read8(uint64_t address) { return *(volatile uint8_t *)address; }
static inline void write16(uint64_t address, uint16_t value) { *(volatile uint16_t *)address = value; }
/* What was stored to memory before a register store is visible to the device that the store wakes. */
static inline void barrier(void) { __asm__ volatile("fence iorw, iorw" ::: "memory"); }
static inline void write32(uint64_t address, uint32_t value) {
  barrier();
  *(volatile uint32_t *)address = value;
}
static inline void write64(uint64_t address, uint64_t value) {
  barrier();
  *(volatile uint64_t *)address = value;
}
#endif
