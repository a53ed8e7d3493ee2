/*
 * Paths. The device nodes and the sysfs of the model lie as real files in a private tree (NESTBOX_HOST_TREE): what lists, resolves or reads
 * them needs to be sent there and no more. A node is a file that holds its device number ("511:0"); opening it is the server's.
 */
#include "hostshim.h"
#include <dirent.h>
#include <sys/sysmacros.h>

static char tree[PATH_MAX / 2];

/* what the model answers for, if its tree is there */
static const char *const places[] = {
	"/dev/vfio", "/dev/iommu", "/sys/bus/pci/devices", "/sys/bus/platform/devices", "/sys/kernel/iommu_groups", "/sys/class/iommu", "/sys/class/vfio-dev",
};

void hs_paths_init(void)
{
	const char *p = getenv("NESTBOX_HOST_TREE");

	snprintf(tree, sizeof(tree), "%s", p ? p : "");
}

static bool below(const char *path, const char *place)
{
	size_t n = strlen(place);

	return !strncmp(path, place, n) && (path[n] == 0 || path[n] == '/');
}

bool hs_is_node(const char *path)
{
	return path && hs_socket[0] && (!strcmp(path, "/dev/iommu") || !strncmp(path, "/dev/vfio/", 10));
}

const char *hs_path(const char *path, char buf[PATH_MAX])
{
	if (!path || path[0] != '/' || !tree[0] || (path[1] != 'd' && path[1] != 's'))
		return path;
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
		if (below(path, places[i])) {
			snprintf(buf, PATH_MAX, "%s%s", tree, path);
			return buf;
		}
	return path;
}

/* the device number in a node's file, or 0 */
static dev_t node_number(const char *path)
{
	unsigned int major, minor;
	char text[32] = "";
	size_t n = strlen(tree);
	int fd;

	if (!n || strncmp(path, tree, n) || strncmp(path + n, "/dev/", 5))
		return 0;
	fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	if (sys_read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	sys_close(fd);
	return sscanf(text, "%u:%u", &major, &minor) == 2 ? makedev(major, minor) : 0;
}

static int stat_at(int dir, const char *path, struct stat *st, int flags)
{
	char buf[PATH_MAX];
	const char *real = hs_path(path, buf);
	int r = syscall(SYS_newfstatat, dir, real, st, flags);
	dev_t number;

	if (!r && real == buf && S_ISREG(st->st_mode) && (number = node_number(real))) {
		st->st_mode = S_IFCHR | 0600;
		st->st_rdev = number;
		st->st_size = 0;
	}
	return r;
}

static int stat_fd(int fd, struct stat *st)
{
	int r = syscall(SYS_fstat, fd, st);
	uint64_t ino;
	int64_t number;

	if (r || !S_ISSOCK(st->st_mode) || !(ino = hs_ours(fd)))
		return r;
	number = hs_call(HS_FSTAT, &ino, sizeof(ino), NULL, 0, NULL);
	if (number >= 0) {
		st->st_mode = S_IFCHR | 0600;
		st->st_rdev = makedev(number >> 20, number & 0xfffff);
	}
	return 0;
}

_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "one layout of struct stat");
EXPORT int stat(const char *p, struct stat *st) { return stat_at(AT_FDCWD, p, st, 0); }
EXPORT int stat64(const char *p, struct stat64 *st) { return stat_at(AT_FDCWD, p, (void *)st, 0); }
EXPORT int lstat(const char *p, struct stat *st) { return stat_at(AT_FDCWD, p, st, AT_SYMLINK_NOFOLLOW); }
EXPORT int lstat64(const char *p, struct stat64 *st) { return stat_at(AT_FDCWD, p, (void *)st, AT_SYMLINK_NOFOLLOW); }
EXPORT int fstat(int fd, struct stat *st) { return stat_fd(fd, st); }
EXPORT int fstat64(int fd, struct stat64 *st) { return stat_fd(fd, (void *)st); }
EXPORT int fstatat(int d, const char *p, struct stat *st, int f)
{
	return p && !p[0] && (f & AT_EMPTY_PATH) ? stat_fd(d, st) : stat_at(d, p, st, f);
}
EXPORT int fstatat64(int d, const char *p, struct stat64 *st, int f) { return fstatat(d, p, (void *)st, f); }

EXPORT int statx(int d, const char *restrict p, int flags, unsigned int mask, struct statx *restrict sx)
{
	char buf[PATH_MAX];
	const char *real = hs_path(p, buf);
	int r = syscall(SYS_statx, d, real, flags, mask, sx);
	struct stat st;

	if (r)
		return r;
	if (real == buf ? stat_at(d, p, &st, flags & AT_SYMLINK_NOFOLLOW) : !(p && !p[0] && hs_ours(d)) || stat_fd(d, &st))
		return 0;
	sx->stx_mode = st.st_mode;
	sx->stx_rdev_major = major(st.st_rdev);
	sx->stx_rdev_minor = minor(st.st_rdev);
	return 0;
}

static int access_at(int dir, const char *path, int mode)
{
	char buf[PATH_MAX];
	const char *real = hs_path(path, buf);

	return syscall(SYS_faccessat, dir, real, real == buf && hs_is_node(path) ? F_OK : mode);
}
EXPORT int access(const char *path, int mode) { return access_at(AT_FDCWD, path, mode); }
EXPORT int faccessat(int d, const char *path, int mode, int flags)
{
	(void)flags;
	return access_at(d, path, mode);
}

EXPORT ssize_t readlink(const char *restrict path, char *restrict to, size_t n)
{
	char buf[PATH_MAX];

	return syscall(SYS_readlinkat, AT_FDCWD, hs_path(path, buf), to, n);
}
EXPORT ssize_t readlinkat(int d, const char *restrict path, char *restrict to, size_t n)
{
	char buf[PATH_MAX];

	return syscall(SYS_readlinkat, d, hs_path(path, buf), to, n);
}

EXPORT ssize_t getxattr(const char *path, const char *name, void *value, size_t n)
{
	char buf[PATH_MAX];

	return syscall(SYS_getxattr, hs_path(path, buf), name, value, n);
}
EXPORT ssize_t lgetxattr(const char *path, const char *name, void *value, size_t n)
{
	char buf[PATH_MAX];

	return syscall(SYS_lgetxattr, hs_path(path, buf), name, value, n);
}
EXPORT ssize_t listxattr(const char *path, char *list, size_t n)
{
	char buf[PATH_MAX];

	return syscall(SYS_listxattr, hs_path(path, buf), list, n);
}
EXPORT ssize_t llistxattr(const char *path, char *list, size_t n)
{
	char buf[PATH_MAX];

	return syscall(SYS_llistxattr, hs_path(path, buf), list, n);
}

/* the C library's own function behind an interposed one */
#define REAL(name) ({ static __typeof__(&name) f; if (!f) f = (__typeof__(&name))dlsym(RTLD_NEXT, #name); f; })
#include <dlfcn.h>

EXPORT char *realpath(const char *restrict path, char *restrict to)
{
	char buf[PATH_MAX];

	return REAL(realpath)(hs_path(path, buf), to);
}
EXPORT char *canonicalize_file_name(const char *path)
{
	return realpath(path, NULL);
}
EXPORT DIR *opendir(const char *path)
{
	char buf[PATH_MAX];

	return REAL(opendir)(hs_path(path, buf));
}
EXPORT int scandir(const char *restrict path, struct dirent ***restrict list, int (*filter)(const struct dirent *),
		   int (*compare)(const struct dirent **, const struct dirent **))
{
	char buf[PATH_MAX];

	return REAL(scandir)(hs_path(path, buf), list, filter, compare);
}
EXPORT int scandir64(const char *restrict path, struct dirent64 ***restrict list, int (*filter)(const struct dirent64 *),
		     int (*compare)(const struct dirent64 **, const struct dirent64 **))
{
	char buf[PATH_MAX];

	return REAL(scandir64)(hs_path(path, buf), list, filter, compare);
}
