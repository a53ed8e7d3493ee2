/*
 * A user of VFIO that means no good, on a modelled host: `wrong BDF` passes descriptors that are not what they should be, `storm BDF N` has N children
 * that are killed or end anywhere, `left BDF` ends before its child. What is refused is refused with Linux's errno. Ends with 0, or says on standard error what went wrong.
 */
#include "vfio-client.h"
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* drivers/vfio/pci/vfio_pci_intrs.c: eventfd_ctx_fdget() */
static int set_irq(int fd)
{
	struct irq_set set = { .argsz = sizeof(set), .flags = 0x24, .index = 1, .count = 1, .fd = fd };

	return ioctl(device, VFIO(10), &set) ? errno : 0;
}

/* drivers/iommu/iommufd/io_pagetable.c: iopt_map_file_pages(); mm/gup.c: memfd_pin_folios() */
static int map_file(int fd, uint64_t start, uint64_t length)
{
	struct ioas_map_file m = { .size = sizeof(m), .flags = 7, .ioas = ioas, .fd = fd, .start = start, .length = length, .iova = 0x50000000 };

	return ioctl(iommufd, IOMMUFD(0x8f), &m) ? errno : 0;
}

/* drivers/vfio/device_cdev.c: iommufd_ctx_from_fd() */
static int bind_to(int file, int fd)
{
	struct bind bind = { .argsz = sizeof(bind), .iommufd = fd };

	return ioctl(file, VFIO(18), &bind) ? errno : 0;
}

static void works(void)
{
	int event = eventfd(0, EFD_CLOEXEC);
	uint64_t count;

	CHECK(!set_irq(event));
	write32(0x60, 1);
	CHECK(read(event, &count, 8) == 8 && count == 1);
	CHECK(read32(0x24) == 1);
	write32(0x64, 1);
	close(event);
}

static void wrong(const char *bdf)
{
	int pipes[2], pair[2], second = open(node(bdf), O_RDWR), zero = open("/dev/zero", O_RDWR), folder = open("/", O_RDONLY);
	int memory = memfd_create("ram", 0), path = open("/proc/self/exe", O_PATH), text = open("/proc/self/exe", O_RDONLY);
	int event = eventfd(0, 0), queue = epoll_create1(0), closed = dup(zero), fds[12], n = 0;

	CHECK(!pipe(pipes) && !socketpair(AF_UNIX, SOCK_STREAM, 0, pair) && !ftruncate(memory, 65536) && second >= 0);
	close(closed);
	fds[n++] = pipes[0];
	fds[n++] = pipes[1];
	fds[n++] = pair[0];
	fds[n++] = zero;
	fds[n++] = folder;
	fds[n++] = text;
	fds[n++] = queue;
	fds[n++] = device;
	fds[n++] = iommufd;
	for (int i = 0; i < n; i++) {
		CHECK(set_irq(fds[i]) == EINVAL);
		CHECK(map_file(fds[i], 0, 4096) == EINVAL);
		CHECK(fds[i] == iommufd || bind_to(second, fds[i]) == EBADFD);
	}
	CHECK(set_irq(memory) == EINVAL && map_file(event, 0, 4096) == EINVAL);
	CHECK(bind_to(second, event) == EBADFD && bind_to(second, memory) == EBADFD);
	/* the same number, none, and far from any; a descriptor by which nothing can be done */
	fds[0] = closed;
	fds[1] = 0x7fffffff;
	fds[2] = path;
	for (int i = 0; i < 3; i++) {
		CHECK(set_irq(fds[i]) == EBADF);
		CHECK(map_file(fds[i], 0, 4096) == EBADF);
		CHECK(bind_to(second, fds[i]) == EBADF);
	}
	CHECK(map_file(-1, 0, 4096) == EBADF);
	/* vfio_df_ioctl_bind_iommufd() looks at the sign first */
	CHECK(bind_to(second, -1) == EINVAL);
	/* beyond the end, and round the end of all numbers */
	CHECK(map_file(memory, 0, 131072) == EINVAL);
	CHECK(map_file(memory, 1ULL << 40, 4096) == EINVAL);
	CHECK(map_file(memory, -4096ULL, 8192) == EOVERFLOW || errno == EINVAL);
	CHECK(!map_file(memory, 4096, 4096));
	unmap(0x50000000, 4096);
	works();
	/* it shrinks while it is pinned: the device's copy is refused or is of nothing, and nothing else happens */
	CHECK(!map_file(memory, 0, 65536));
	CHECK(!ftruncate(memory, 0));
	write64(0x80, 0x50000000);
	write64(0x88, 0x40000);
	write64(0x90, 4096);
	write64(0x98, 1);
	while (read32(0x98) & 1)
		;
	unmap(0x50000000, 65536);
	works();
}

static void storm(int children)
{
	pid_t child[children];
	int status;

	for (int i = 0; i < children; i++) {
		CHECK((child[i] = fork()) >= 0);
		if (child[i] == 0) {
			char *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

			CHECK(read32(0) == 0x010000ed);
			CHECK((iommufd = open("/dev/iommu", O_RDWR)) >= 0);
			struct ioas_alloc alloc = { .size = sizeof(alloc) };

			CHECK(!ioctl(iommufd, IOMMUFD(0x81), &alloc));
			ioas = alloc.id;
			for (int n = 0; n < 8; n++)
				map(memory, 65536, 0x10000000 + n * 65536);
			if (i % 2)
				unmap(0x10000000, 65536);
			/* grandchildren that the others outlive */
			if (i % 5 == 0 && fork() == 0)
				raise(SIGKILL);
			_exit(0);
		}
		if (i % 3 == 0)
			kill(child[i], SIGKILL);
	}
	for (int i = 0; i < children; i++) {
		CHECK(waitpid(child[i], &status, 0) == child[i]);
		CHECK(i % 3 == 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
	}
	works();
}

/* a child that has all it had lives on; its number */
static void left(void)
{
	pid_t child = fork();

	CHECK(child >= 0);
	if (child == 0) {
		close(1);
		for (;;)
			pause();
	}
	printf("%d\n", child);
}

int main(int argc, char **argv)
{
	CHECK(argc >= 3);
	attach_device(argv[2]);
	CHECK(enable() == 1 << 20);
	if (!strcmp(argv[1], "wrong"))
		wrong(argv[2]);
	else if (!strcmp(argv[1], "left"))
		left();
	else
		storm(atoi(argv[3]));
	return 0;
}
