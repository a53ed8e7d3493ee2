/*
 * A user of VFIO, as any other on Linux: what it does is its first argument. Tests run it on a modelled host with an edu device (QEMU:
 * docs/specs/edu.rst) named by the second. Ends with 0, or says on standard error what went wrong.
 */
#include "vfio-client.h"
#include <sys/socket.h>
#include <sys/wait.h>

static void begin(void)
{
	CHECK(enable() == 1 << 20);
	CHECK(read32(0) == 0x010000ed);
}

static void open_device(const char *bdf)
{
	attach_device(bdf);
	begin();
}

/* the device copies between its buffer and memory; 1: to memory */
static void dma(uint64_t iova, uint32_t bytes, int to_memory)
{
	write64(0x80, to_memory ? 0x40000 : iova);
	write64(0x88, to_memory ? iova : 0x40000);
	write64(0x90, bytes);
	write64(0x98, to_memory ? 3 : 1);
	while (read32(0x98) & 1)
		;
}

/* the device copies page `from` to page `to` */
static void copy_page(unsigned char *memory, uint64_t iova, uint64_t from, uint64_t to)
{
	for (int i = 0; i < 4096; i++)
		memory[from + i] = i * 7 + 3;
	memset(memory + to, 0, 4096);
	dma(iova + from, 4096, 0);
	dma(iova + to, 4096, 1);
	CHECK(!memcmp(memory + from, memory + to, 4096));
}

static long status_kb(const char *what)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	long kb = -1;

	if (!f) {
		snprintf(line, sizeof(line), "/proc/%d/status", getpid());
		f = fopen(line, "r");
	}
	CHECK(f);
	fclose(f);
	snprintf(line, sizeof(line), "/proc/%d/status", getpid());
	CHECK((f = fopen(line, "r")));
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, what, strlen(what)))
			kb = atol(line + strlen(what) + 1);
	fclose(f);
	return kb;
}

/* DMA to ordinary memory, a memfd by its mapping and by its descriptor, at many sizes; pinned memory is counted */
static void memories(void)
{
	const size_t size = 8 << 20;
	unsigned char *plain = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = memfd_create("ram", 0);
	struct ioas_map_file file = { .size = sizeof(file), .flags = 7, .ioas = ioas, .fd = fd, .length = size, .iova = 0x40000000 };
	unsigned char *shared;

	CHECK(!ftruncate(fd, size));
	shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(plain != MAP_FAILED && shared != MAP_FAILED);
	map(plain, size, 0x10000000);
	CHECK(status_kb("VmPin:") == 8192);
	copy_page(plain, 0x10000000, 0x1000, size - 4096);
	map(shared, size, 0x20000000);
	copy_page(shared, 0x20000000, 0, 0x300000);
	CHECK(!ioctl(iommufd, IOMMUFD(0x8f), &file));
	copy_page(shared, 0x40000000, 0x5000, 0x600000);
	/* what the device reads through one mapping is what was written through the other */
	memset(shared + 0x7000, 0x5a, 4096);
	dma(0x40007000, 4096, 0);
	dma(0x10000000, 4096, 1);
	CHECK(!memcmp(plain, shared + 0x7000, 4096));
	unmap(0x10000000, size);
	unmap(0x20000000, size);
	unmap(0x40000000, size);
	CHECK(status_kb("VmPin:") == 0);
	/* nothing is mapped there any more */
	memset(plain, 0x11, 4096);
	dma(0x10000000, 4096, 1);
	CHECK(plain[0] == 0x11 && plain[4095] == 0x11);
}

/* DMA to huge pages, private and of a memfd; skipped (4) where there is no pool of them */
static int huge(void)
{
	const size_t size = 2 << 20;
	unsigned char *private = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	int fd = memfd_create("huge", MFD_HUGETLB);
	struct ioas_map_file file = { .size = sizeof(file), .flags = 7, .ioas = ioas, .fd = fd, .length = size, .iova = 0x40000000 };
	unsigned char *shared;

	if (private == MAP_FAILED || fd < 0 || ftruncate(fd, size))
		return 4;
	shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		return 4;
	map(private, size, 0x10000000);
	copy_page(private, 0x10000000, 0x1000, 0x180000);
	map(shared, size, 0x20000000);
	copy_page(shared, 0x20000000, 0x2000, 0x190000);
	CHECK(!ioctl(iommufd, IOMMUFD(0x8f), &file));
	copy_page(shared, 0x40000000, 0x3000, 0x1a0000);
	return 0;
}

/* MSIs arrive at an eventfd, as many as were raised; unmask eventfds do not exist for them */
static void interrupts(void)
{
	int event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct irq_set set = { .argsz = sizeof(set), .flags = 0x24, .index = 1, .count = 1, .fd = event };
	struct pollfd p = { .fd = event, .events = POLLIN };
	uint64_t count, sum = 0;

	CHECK(!ioctl(device, VFIO(10), &set));
	for (int i = 0; i < 5; i++) {
		write32(0x60, 1 << i);
		CHECK(poll(&p, 1, 20000) == 1);
		CHECK(read(event, &count, 8) == 8);
		sum += count;
		CHECK(read32(0x24) == 1u << i);
		write32(0x64, 1 << i);
	}
	CHECK(sum == 5);
	/* what a call itself signals is there when it returns (vfio_pci_set_msi_trigger) */
	set.flags = 0x21;
	CHECK(!ioctl(device, VFIO(10), &set));
	CHECK(read(event, &count, 8) == 8 && count == 1);
	/* off: the number of the descriptor may be used for something else now */
	set.flags = 0x21;
	set.count = 0;
	CHECK(!ioctl(device, VFIO(10), &set));
}

static int descriptors(void)
{
	DIR *list = opendir("/proc/self/fd");
	int n = 0;

	CHECK(list);
	while (readdir(list))
		n++;
	closedir(list);
	return n;
}

/* an eventfd in another's place, again and again: the duplicates of those before it go, as the kernel's references would */
static void replaced_eventfds(void)
{
	struct irq_set set = { .argsz = sizeof(set), .flags = 0x24, .index = 1, .count = 1 };
	int before = 0;

	for (int i = 0; i < 2000; i++) {
		if (i == 1)
			before = descriptors();
		set.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		CHECK(!ioctl(device, VFIO(10), &set));
		close(set.fd);
	}
	for (int i = 0; descriptors() > before && i < 20000; i++)
		usleep(1000);
	CHECK(descriptors() == before);
}

/*
 * Register writes are posted: none is lost or overtaken by a read, and one that cannot be done any more is refused as ever. The liveness
 * register answers with the inverse of what was written.
 */
static void posted(void)
{
	struct region info = { .argsz = sizeof(info), .index = 7 };
	uint16_t command = 0;
	uint32_t value = 1;

	for (uint32_t i = 0; i < 1000; i++) {
		write32(4, i);
		if (i % 7 == 0)
			CHECK(read32(4) == ~i);
	}
	CHECK(!ioctl(device, VFIO(8), &info));
	/* memory decoding off */
	CHECK(pwrite(device, &command, 2, info.offset + 4) == 2);
	CHECK(pwrite(device, &value, 4, bar + 4) == -1 && errno == EIO);
	CHECK(pread(device, &value, 4, bar + 4) == -1 && errno == EIO);
	command = 6;
	CHECK(pwrite(device, &command, 2, info.offset + 4) == 2);
	write32(4, 5);
	CHECK(read32(4) == ~5u);
	/* beyond the region */
	CHECK(pwrite(device, &value, 4, bar + (1 << 20)) == -1 && errno == EINVAL);
}

/* INTx: masked when it arrives, unmasked by an eventfd that the host listens to */
static void pin(void)
{
	int event = eventfd(0, EFD_CLOEXEC), unmask = eventfd(0, EFD_CLOEXEC);
	struct irq_set set = { .argsz = sizeof(set), .flags = 0x24, .index = 0, .count = 1, .fd = event };
	struct irq_set resample = { .argsz = sizeof(set), .flags = 0x14, .index = 0, .count = 1, .fd = unmask };
	struct pollfd p = { .fd = event, .events = POLLIN };
	uint64_t count;

	CHECK(!ioctl(device, VFIO(10), &set));
	CHECK(!ioctl(device, VFIO(10), &resample));
	for (int i = 0; i < 3; i++) {
		write32(0x60, 1);
		CHECK(poll(&p, 1, 20000) == 1);
		CHECK(read(event, &count, 8) == 8 && count == 1);
		write32(0x64, 1);
		count = 1;
		CHECK(write(unmask, &count, 8) == 8);
		/* the host takes it, and then it can arrive again */
		for (struct pollfd u = { .fd = unmask, .events = POLLIN }; poll(&u, 1, 0) == 1;)
			;
	}
}

static void in_child(const char *bdf)
{
	unsigned char *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid_t child;
	int status;

	map(memory, 65536, 0x10000000);
	child = fork();
	if (child == 0) {
		/* the child's registers are the same device's; what it maps is its own memory */
		unsigned char *mine = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		CHECK(read32(0) == 0x010000ed);
		map(mine, 4096, 0x20000000);
		memset(mine, 0x77, 4096);
		dma(0x20000000, 4096, 0);
		unmap(0x20000000, 4096);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	dma(0x10000000, 4096, 1);
	CHECK(memory[0] == 0x77 && memory[4095] == 0x77);
	(void)bdf;
}

/* descriptors sent over a socket to a process that has opened nothing */
static void pass(void)
{
	int pair[2], status;
	pid_t child;

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	child = fork();
	if (child == 0) {
		char name[32], space[32], control[CMSG_SPACE(2 * sizeof(int))], c;
		struct iovec iov = { &c, 1 };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
		int fds[2];

		close(device);
		close(iommufd);
		CHECK(recvmsg(pair[1], &msg, 0) == 1);
		memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fds));
		snprintf(name, sizeof(name), "%d", fds[0]);
		snprintf(space, sizeof(space), "%d", fds[1]);
		execl("/proc/self/exe", "vfio-program", "inherited", name, space, NULL);
		_exit(1);
	}
	char c = 0, control[CMSG_SPACE(2 * sizeof(int))] = { 0 };
	struct iovec iov = { &c, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
	int fds[2] = { device, iommufd };

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(header), fds, sizeof(fds));
	CHECK(sendmsg(pair[0], &msg, 0) == 1);
	close(device);
	close(iommufd);
	CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* the MSI window, where user space may map nothing, is where the host says; the function has no messages */
static void window(uint64_t at)
{
	unsigned char *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct ioas_map m = { .size = sizeof(m), .flags = 7, .ioas = ioas, .va = (uintptr_t)memory, .length = 4096, .iova = at };
	int event = eventfd(0, EFD_CLOEXEC);
	struct irq_set set = { .argsz = sizeof(set), .flags = 0x24, .index = 1, .count = 1, .fd = event };

	CHECK(ioctl(iommufd, IOMMUFD(0x85), &m) == -1 && errno == EINVAL);
	m.iova = at + 0xff000;
	CHECK(ioctl(iommufd, IOMMUFD(0x85), &m) == -1 && errno == EINVAL);
	map(memory, 4096, at + 0x100000);
	map(memory, 4096, at - 0x1000);
	CHECK(ioctl(device, VFIO(10), &set) == -1 && errno == EINVAL);
	pin();
}

/* a mapping is replaced by another: 0 if the device reads the new memory, 3 if the old */
static int replaced(void)
{
	unsigned char *old = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *new = old + 4096;
	unsigned char *seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(old, 0x0d, 4096);
	memset(new, 0x9e, 4096);
	map(seen, 4096, 0x20000000);
	map(old, 4096, 0x10000000);
	dma(0x10000000, 4096, 0);
	unmap(0x10000000, 4096);
	map(new, 4096, 0x10000000);
	dma(0x10000000, 4096, 0);
	dma(0x20000000, 4096, 1);
	CHECK(seen[0] == 0x9e || seen[0] == 0x0d);
	return seen[0] == 0x9e ? 0 : 3;
}

/* the smallest time that mapping takes, in ms: at least what the second argument says */
static void slow(double ms)
{
	unsigned char *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	map(memory, 4096, 0x10000000);
	clock_gettime(CLOCK_MONOTONIC, &b);
	CHECK((b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) / 1e6 >= ms);
}

/* the old way: a container, a group, a device of it */
static void group(const char *bdf)
{
	unsigned char *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char path[300], link[300];
	int container = open("/dev/vfio/vfio", O_RDWR), fd;
	struct group_status status = { .argsz = sizeof(status) };
	struct type1_map m = { .argsz = sizeof(m), .flags = 3, .va = (uintptr_t)memory, .iova = 0x10000000, .size = 65536 };
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	CHECK((n = readlink(path, link, sizeof(link) - 1)) > 0);
	link[n] = 0;
	snprintf(path, sizeof(path), "/dev/vfio/%s", strrchr(link, '/') + 1);
	CHECK(container >= 0 && (fd = open(path, O_RDWR)) >= 0);
	CHECK(!ioctl(container, VFIO(0)) && ioctl(container, VFIO(1), 3) == 1);
	CHECK(!ioctl(fd, VFIO(3), &status) && status.flags & 1);
	CHECK(!ioctl(fd, VFIO(4), &container));
	CHECK(!ioctl(container, VFIO(2), 3));
	CHECK((device = ioctl(fd, VFIO(6), bdf)) >= 0);
	CHECK(!ioctl(container, VFIO(13), &m));
	begin();
	copy_page(memory, 0x10000000, 0, 0x4000);
	interrupts();
}

static int ascending(const void *a, const void *b)
{
	return *(const double *)a < *(const double *)b ? -1 : 1;
}

/* medians in microseconds, as JSON */
#define ROUNDS 20000
static double samples[ROUNDS];
static double median(int n)
{
	qsort(samples, n, sizeof(*samples), ascending);
	return samples[n / 2];
}

static void bench(void)
{
	unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int event = eventfd(0, EFD_CLOEXEC);
	struct irq_set set = { .argsz = sizeof(set), .flags = 0x24, .index = 1, .count = 1, .fd = event };
	double start, end, reads, writes, maps, total;
	uint64_t count;

	page[0] = 1;
	for (int i = 0; i < ROUNDS; i++) {
		start = now_us();
		read32(4);
		samples[i] = now_us() - start;
	}
	reads = median(ROUNDS);
	start = now_us();
	for (int i = 0; i < ROUNDS; i++)
		write32(4, i);
	/* all have arrived when a read has */
	read32(4);
	writes = (now_us() - start) / ROUNDS;
	for (int i = 0; i < ROUNDS / 2; i++) {
		start = now_us();
		map(page, 4096, 0x10000000);
		unmap(0x10000000, 4096);
		samples[i] = now_us() - start;
	}
	maps = median(ROUNDS / 2);
	CHECK(!ioctl(device, VFIO(10), &set));
	total = now_us();
	for (int i = 0; i < ROUNDS / 2; i++) {
		start = now_us();
		write32(0x60, 1);
		CHECK(read(event, &count, 8) == 8);
		end = now_us();
		samples[i] = end - start;
		write32(0x64, 1);
	}
	total = (now_us() - total) / (ROUNDS / 2);
	printf("{\"barReadUs\":%.1f,\"barWriteUs\":%.1f,\"mapUnmapUs\":%.1f,\"raiseUs\":%.1f,\"raiseAckUs\":%.1f}\n", reads, writes,
	       maps, median(ROUNDS / 2), total);
}

int main(int argc, char **argv)
{
	const char *what = argv[1], *bdf = argv[2];

	CHECK(argc >= 3);
	if (!strcmp(what, "inherited")) {
		device = atoi(argv[2]);
		iommufd = atoi(argv[3]);
		ioas = 2;
		begin();
		memories();
		interrupts();
		return 0;
	}
	if (!strcmp(what, "group")) {
		group(bdf);
		return 0;
	}
	open_device(bdf);
	if (!strcmp(what, "memories")) {
		memories();
	} else if (!strcmp(what, "eventfds")) {
		replaced_eventfds();
	} else if (!strcmp(what, "interrupts")) {
		interrupts();
	} else if (!strcmp(what, "posted")) {
		posted();
	} else if (!strcmp(what, "huge")) {
		return huge();
	} else if (!strcmp(what, "unknown")) {
		uint32_t size = 64;

		CHECK(ioctl(iommufd, IOMMUFD(0xf0), &size) == -1 && errno == ENOTTY);
	} else if (!strcmp(what, "replaced")) {
		return replaced();
	} else if (!strcmp(what, "slow")) {
		slow(atof(argv[3]));
	} else if (!strcmp(what, "window")) {
		window(strtoull(argv[3], NULL, 0));
	} else if (!strcmp(what, "pin")) {
		pin();
	} else if (!strcmp(what, "child")) {
		in_child(bdf);
	} else if (!strcmp(what, "bench")) {
		bench();
	} else if (!strcmp(what, "pass")) {
		pass();
	} else if (!strcmp(what, "killed") || !strcmp(what, "stopped")) {
		unsigned char *memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		map(memory, 1 << 20, 0x10000000);
		copy_page(memory, 0x10000000, 0, 0x4000);
		raise(what[0] == 'k' ? SIGKILL : SIGSTOP);
	} else {
		CHECK(!"something it knows");
	}
	return 0;
}
