/*
 * What programs that use VFIO by iommufd have in common: a device opened by its node in sysfs and attached to an address space of its own, its
 * registers, memory that it reaches.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

/* include/uapi/linux/vfio.h and iommufd.h; written down here because Debian's headers may be older */
#define VFIO(n) (0x3b00 | (100 + (n)))
#define IOMMUFD(n) (0x3b00 | (n))
struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t devid; };
struct attach { uint32_t argsz, flags, pt_id; };
struct region { uint32_t argsz, flags, index, cap; uint64_t size, offset; };
struct irq_set { uint32_t argsz, flags, index, start, count; int32_t fd, more; };
struct ioas_alloc { uint32_t size, flags, id; };
struct ioas_map { uint32_t size, flags, ioas, rsvd; uint64_t va, length, iova; };
struct ioas_map_file { uint32_t size, flags, ioas; int32_t fd; uint64_t start, length, iova; };
struct ioas_unmap { uint32_t size, ioas; uint64_t iova, length; };
struct type1_map { uint32_t argsz, flags; uint64_t va, iova, size; };
struct group_status { uint32_t argsz, flags; };

#define CHECK(x) do { if (!(x)) { fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #x, errno); exit(1); } } while (0)

static int device, iommufd;
static uint32_t ioas;
static uint64_t bar;

static void write32(uint64_t at, uint32_t value) { CHECK(pwrite(device, &value, 4, bar + at) == 4); }
static void write64(uint64_t at, uint64_t value) { CHECK(pwrite(device, &value, 8, bar + at) == 8); }
static uint32_t read32(uint64_t at)
{
	uint32_t value;

	CHECK(pread(device, &value, 4, bar + at) == 4);
	return value;
}

/* path of the device's node, from sysfs */
static const char *node(const char *bdf)
{
	static char path[300];

	for (int n = 0; n < 16; n++) {
		struct stat st;

		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/vfio-dev/vfio%d", bdf, n);
		if (stat(path, &st))
			continue;
		snprintf(path, sizeof(path), "/dev/vfio/devices/vfio%d", n);
		return path;
	}
	CHECK(!"a vfio device");
	return NULL;
}

static void attach_device(const char *bdf)
{
	struct ioas_alloc alloc = { .size = sizeof(alloc) };
	struct bind bind = { .argsz = sizeof(bind) };
	struct attach attach = { .argsz = sizeof(attach) };
	struct stat st;

	CHECK(!access("/dev/iommu", R_OK | W_OK));
	CHECK((iommufd = open("/dev/iommu", O_RDWR)) >= 0);
	CHECK((device = open(node(bdf), O_RDWR)) >= 0);
	CHECK(!fstat(device, &st) && S_ISCHR(st.st_mode) && major(st.st_rdev) == 511);
	bind.iommufd = iommufd;
	CHECK(!ioctl(device, VFIO(18), &bind));
	CHECK(!ioctl(iommufd, IOMMUFD(0x81), &alloc));
	ioas = attach.pt_id = alloc.id;
	CHECK(!ioctl(device, VFIO(19), &attach));
}

/* where BAR 0 and its size are; the function answers and may do DMA from now on */
static uint64_t enable(void)
{
	struct region info = { .argsz = sizeof(info), .index = 0 };
	uint16_t command = 6;
	uint64_t size;

	CHECK(!ioctl(device, VFIO(8), &info));
	bar = info.offset;
	size = info.size;
	CHECK(!(info.flags & 4 /* mmap */));
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, device, bar) == MAP_FAILED && errno == EINVAL);
	info.index = 7;
	CHECK(!ioctl(device, VFIO(8), &info));
	CHECK(pwrite(device, &command, 2, info.offset + 4) == 2);
	return size;
}

static void map(void *va, uint64_t length, uint64_t iova)
{
	struct ioas_map map = { .size = sizeof(map), .flags = 7, .ioas = ioas, .va = (uintptr_t)va, .length = length, .iova = iova };

	CHECK(!ioctl(iommufd, IOMMUFD(0x85), &map));
}

static inline void unmap(uint64_t iova, uint64_t length)
{
	struct ioas_unmap unmap = { .size = sizeof(unmap), .ioas = ioas, .iova = iova, .length = length };

	CHECK(!ioctl(iommufd, IOMMUFD(0x86), &unmap));
}

static inline double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}
