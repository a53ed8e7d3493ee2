/* Interposed system calls on files: open, ioctl, read, write, mmap. Everything that is not the model's goes through. */
#include "hostshim.h"
#include <dlfcn.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>

static bool fake_huge, emul_failnth;
static const size_t HUGE = 2UL << 20;

#define MAX_RANGES 256
static struct range { uintptr_t a; size_t len; int fd; } vmas[MAX_RANGES], huges[MAX_RANGES];

static void *sys_mmap(void *a, size_t l, int p, int f, int fd, off_t o)
{
	return (void *)syscall(SYS_mmap, a, l, p, f, fd, o);
}

__attribute__((constructor(102))) static void calls_init(void)
{
	fake_huge = getenv("NESTBOX_HOST_FAKE_HUGETLB") != NULL;
	emul_failnth = getenv("NESTBOX_HOST_FAIL_NTH") != NULL;
}

/* libcap's cap_set_proc() ends here */
EXPORT int capset(cap_user_header_t h, const cap_user_data_t d)
{
	int r = syscall(SYS_capset, h, d);

	if (d && (!r || hs_assume_root)) {
		hs_cap_mask = d[0].effective;
		if (h->version != _LINUX_CAPABILITY_VERSION_1)
			hs_cap_mask |= (uint64_t)d[1].effective << 32;
		if (hs_assume_root) {
			/* start from "everything", honour only what is dropped */
			static const uint64_t honoured = 1ULL << CAP_IPC_LOCK;

			hs_cap_mask = (hs_cap_mask & honoured) | ~honoured;
			r = 0;
		}
	}
	hs_caps_changed();
	return r;
}

static int do_open(int dirfd, const char *path, int flags, mode_t mode)
{
	char buf[PATH_MAX];

	/* with O_PATH nothing is opened */
	if ((hs_is_node(path) && !(flags & (O_PATH | O_DIRECTORY))) ||
	    (emul_failnth && path && strstr(path, "/fail-nth") && !strncmp(path, "/proc/", 6))) {
		int fd = hs_open(path, flags);

		TRACE("open(%s) = %d\n", path, fd);
		return ret_errno(fd);
	}
	/* debugfs knobs poked by iommufd_fail_nth */
	if (emul_failnth && path && dirfd != AT_FDCWD && !strncmp(path, "fail", 4))
		return sys_openat(AT_FDCWD, "/dev/null", O_WRONLY | (flags & O_CLOEXEC), 0);
	return sys_openat(dirfd, hs_path(path, buf), flags, mode);
}

#define GET_MODE(flags) \
	mode_t mode = 0; \
	if ((flags) & (O_CREAT | __O_TMPFILE)) { \
		va_list ap; \
		va_start(ap, flags); \
		mode = va_arg(ap, mode_t); \
		va_end(ap); \
	}
EXPORT int open(const char *path, int flags, ...) { GET_MODE(flags); return do_open(AT_FDCWD, path, flags, mode); }
EXPORT int open64(const char *path, int flags, ...) { GET_MODE(flags); return do_open(AT_FDCWD, path, flags, mode); }
EXPORT int openat(int d, const char *path, int flags, ...) { GET_MODE(flags); return do_open(d, path, flags, mode); }
EXPORT int openat64(int d, const char *path, int flags, ...) { GET_MODE(flags); return do_open(d, path, flags, mode); }
EXPORT int __open_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
EXPORT int __open64_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
EXPORT int __openat_2(int d, const char *path, int flags) { return do_open(d, path, flags, 0); }

EXPORT int ioctl(int fd, unsigned long cmd, ...)
{
	char inl[HS_INLINE];
	struct hs_ioctl q;
	unsigned long arg;
	va_list ap;
	int64_t r;

	va_start(ap, cmd);
	arg = va_arg(ap, unsigned long);
	va_end(ap);

	memset(&q, 0, sizeof(q));
	q.ino = hs_ours(fd);
	if (!q.ino)
		return syscall(SYS_ioctl, fd, cmd, arg);
	q.cmd = cmd;
	q.arg = arg;
	q.fd = fd;
	if (arg >= 4096) {
		/* u32 size or argsz first, like every iommufd and vfio structure; most lie within a page */
		size_t page = 4096 - arg % 4096;
		ssize_t n = hs_copy(false, arg, inl, MIN(page, sizeof(inl)));

		if (n >= 4) {
			uint32_t size = MIN(*(uint32_t *)inl, sizeof(inl));

			if (size > n) {
				n = hs_copy(false, arg, inl, size);
				size = n > 0 ? n : 0;
			}
			q.inline_len = size < 4 && n >= 4 ? 4 : size;
			/* can the answer be written there? What is there is written, which changes nothing. */
			q.writable = hs_copy(true, arg, inl, q.inline_len) == q.inline_len;
		}
	}
	hs_may_post(fd, q.ino, NULL);
	r = hs_call(HS_IOCTL, &q, sizeof(q), inl, q.inline_len, NULL);
	TRACE("ioctl(%d, %#lx, %#lx) = %ld\n", fd, cmd, arg, (long)r);
	return ret_errno(r);
}

static ssize_t do_rw(int type, int fd, uint64_t ino, const void *buf, size_t count, int64_t pos)
{
	struct hs_rw q = { .ino = ino, .addr = (uintptr_t)buf, .count = count, .pos = pos };
	char bytes[HS_INLINE] = "";
	struct reply out;
	ssize_t n = 0;
	int64_t r;

	/* Doorbells are swallowed first; the server rings again before it answers if something is still queued. */
	if (type == HS_READ && pos == -1)
		while (syscall(SYS_recvfrom, fd, bytes, sizeof(bytes), MSG_DONTWAIT, NULL, NULL) > 0)
			;
	if (type == HS_WRITE && count <= sizeof(bytes))
		n = hs_copy(false, q.addr, bytes, count);
	if (type == HS_WRITE && pos >= 0 && n > 0 && n <= 8 && (size_t)n == count && hs_post(fd, &q, bytes))
		return n;
	r = hs_call(type, &q, sizeof(q), bytes, n > 0 ? n : 0, &out);
	if (type == HS_WRITE)
		hs_may_post(fd, ino, out.has_posted ? &out.posted : NULL);
	TRACE("%s(%d, %zu, pos %ld) = %ld\n", type == HS_READ ? "read" : "write", fd, count, (long)pos, (long)r);
	return ret_errno(r);
}

EXPORT ssize_t read(int fd, void *b, size_t n)
{
	uint64_t ino = hs_ours(fd);

	return ino ? do_rw(HS_READ, fd, ino, b, n, -1) : sys_read(fd, b, n);
}
EXPORT ssize_t __read_chk(int fd, void *b, size_t n, size_t bl) { (void)bl; return read(fd, b, n); }
EXPORT ssize_t write(int fd, const void *b, size_t n)
{
	uint64_t ino = hs_ours(fd);

	return ino ? do_rw(HS_WRITE, fd, ino, b, n, -1) : sys_write(fd, b, n);
}
EXPORT ssize_t pread(int fd, void *b, size_t n, off_t o)
{
	uint64_t ino = hs_ours(fd);

	return ino ? do_rw(HS_READ, fd, ino, b, n, o) : syscall(SYS_pread64, fd, b, n, o);
}
EXPORT ssize_t pread64(int fd, void *b, size_t n, off_t o) { return pread(fd, b, n, o); }
EXPORT ssize_t pwrite(int fd, const void *b, size_t n, off_t o)
{
	uint64_t ino = hs_ours(fd);

	return ino ? do_rw(HS_WRITE, fd, ino, b, n, o) : syscall(SYS_pwrite64, fd, b, n, o);
}
EXPORT ssize_t pwrite64(int fd, const void *b, size_t n, off_t o) { return pwrite(fd, b, n, o); }

static void range_add(struct range *t, uintptr_t a, size_t len, int fd)
{
	for (int i = 0; i < MAX_RANGES; i++)
		if (!t[i].len) {
			t[i] = (struct range){ a, len, fd };
			return;
		}
}

static void *do_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	uint64_t ino = (flags & MAP_ANONYMOUS) ? 0 : hs_ours(fd);
	struct hs_mmap q = { .ino = ino, .length = len, .offset = off, .prot = prot, .flags = flags };
	struct reply out;
	void *p;
	int bfd, vfd;

	if (!ino) {
		if (fake_huge && (flags & MAP_HUGETLB) && (flags & MAP_ANONYMOUS)) {
			/* 2M aligned, 4K backed stand-in: no hugetlb pool needed */
			len = (len + HUGE - 1) & ~(HUGE - 1);
			flags &= ~(MAP_HUGETLB | MAP_POPULATE);
			if (!(flags & MAP_FIXED)) {
				char *r = sys_mmap(NULL, len + HUGE, PROT_NONE,
						   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
				char *al;

				if (r == MAP_FAILED)
					return r;
				al = (char *)(((uintptr_t)r + HUGE - 1) & ~(HUGE - 1));
				if (al > r)
					syscall(SYS_munmap, r, al - r);
				syscall(SYS_munmap, al + len, r + HUGE - al);
				addr = al;
				flags |= MAP_FIXED;
			}
			p = sys_mmap(addr, len, prot, flags, -1, 0);
			if (p != MAP_FAILED)
				range_add(huges, (uintptr_t)p, len, -1);
			return p;
		}
		return sys_mmap(addr, len, prot, flags, fd, off);
	}
	if (hs_call(HS_MMAP, &q, sizeof(q), NULL, 0, &out) < 0)
		return (void *)ret_errno(out.ret);
	if (!out.has_backing) {
		errno = EIO;
		return MAP_FAILED;
	}
	bfd = sys_openat(AT_FDCWD, out.backing_path, O_RDWR | O_CLOEXEC, 0);
	if (bfd < 0)
		return MAP_FAILED;
	vfd = hs_connect(HS_VMA, out.backing.token, 0, NULL, true);
	if (vfd < 0) {
		sys_close(bfd);
		return (void *)ret_errno(vfd);
	}
	p = sys_mmap(addr, len, prot, flags, bfd, out.backing.file_offset);
	sys_close(bfd);
	if (p == MAP_FAILED)
		sys_close(vfd);
	else
		range_add(vmas, (uintptr_t)p, len, vfd);
	return p;
}
EXPORT void *mmap(void *a, size_t l, int p, int f, int fd, off_t o) { return do_mmap(a, l, p, f, fd, o); }
EXPORT void *mmap64(void *a, size_t l, int p, int f, int fd, off_t o) { return do_mmap(a, l, p, f, fd, o); }

EXPORT int munmap(void *addr, size_t len)
{
	uintptr_t a = (uintptr_t)addr, e = a + len;
	int r = syscall(SYS_munmap, addr, len);

	if (r)
		return r;
	for (int i = 0; i < MAX_RANGES; i++) {
		if (vmas[i].len && vmas[i].a >= a && vmas[i].a + vmas[i].len <= e) {
			sys_close(vmas[i].fd);	/* vm_ops->close */
			vmas[i].len = 0;
		}
		/* fake huge ranges may shrink from either end */
		if (huges[i].len && a < huges[i].a + huges[i].len && e > huges[i].a) {
			if (a <= huges[i].a && e >= huges[i].a + huges[i].len)
				huges[i].len = 0;
			else if (a > huges[i].a)
				huges[i].len = a - huges[i].a;
			else {
				huges[i].len = huges[i].a + huges[i].len - e;
				huges[i].a = e;
			}
		}
	}
	return 0;
}

/* VmPin/VmLck of /proc/<pid>/status are kernel facts the server has to supply. */
EXPORT FILE *fopen(const char *path, const char *mode)
{
	static FILE *(*real)(const char *, const char *);
	struct hs_procstat q = { 0 };
	struct reply out;
	FILE *src, *dst;
	char line[512], buf[PATH_MAX];
	int mfd, n = 0;

	if (!real)
		real = dlsym(RTLD_NEXT, "fopen");
	if (!hs_socket[0] || !path || sscanf(path, "/proc/%u/status%n", &q.pid, &n) != 1 || !n ||
	    path[n])
		return real(hs_path(path, buf), mode);
	if (hs_call(HS_PROCSTAT, &q, sizeof(q), NULL, 0, &out) < 0 || !out.has_pinned)
		return real(hs_path(path, buf), mode);
	src = real(hs_path(path, buf), mode);
	if (!src)
		return NULL;
	mfd = syscall(SYS_memfd_create, "status", 1U);
	dst = mfd < 0 ? NULL : fdopen(mfd, "w+");
	if (!dst) {
		if (mfd >= 0)
			sys_close(mfd);
		return src;
	}
	while (fgets(line, sizeof(line), src)) {
		if (!strncmp(line, "VmLck:", 6))
			fprintf(dst, "VmLck:\t%8llu kB\n", (unsigned long long)out.pinned.vm_lck_kb);
		else if (!strncmp(line, "VmPin:", 6))
			fprintf(dst, "VmPin:\t%8llu kB\n", (unsigned long long)out.pinned.vm_pin_kb);
		else
			fputs(line, dst);
	}
	fclose(src);
	rewind(dst);
	return dst;
}
EXPORT FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }
