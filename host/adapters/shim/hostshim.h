/*
 * Preload shim: what a program asks of /dev/iommu, /dev/vfio and their sysfs goes to a modelled host in another process.
 *
 *  - Every emulated open file is a real kernel object in the program: a Unix stream socket connected to the server. close(), dup(), fork(),
 *    exec(), SCM_RIGHTS, O_CLOEXEC, exit and crash therefore need no interposition: the last reference going away ends a connection.
 *  - Calls travel on one CONTROL connection a process, made again in a fork()ed child (connection.c).
 *  - The server reads and writes the program's memory through /proc/PID; PR_SET_PTRACER_ANY is set for that.
 *  - A thread signals the program's eventfds when the server says so (events.c).
 *  - Paths lead into a private tree of real files (paths.c); calls.c holds what is interposed.
 */
#ifndef HOSTSHIM_H
#define HOSTSHIM_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "proto.h"

#define EXPORT __attribute__((visibility("default")))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define TRACE(...) do { if (hs_trace) dprintf(2, "hostshim: " __VA_ARGS__); } while (0)

extern bool hs_trace;
extern bool hs_assume_root;		/* all capabilities, whoever runs it */
extern char hs_socket[108];		/* "": nothing is emulated */
extern uint64_t hs_cap_mask;		/* with hs_assume_root: what capset() has left */

/* raw system calls: they never come back into what is interposed here */
static inline ssize_t sys_read(int fd, void *b, size_t n) { return syscall(SYS_read, fd, b, n); }
static inline ssize_t sys_write(int fd, const void *b, size_t n) { return syscall(SYS_write, fd, b, n); }
static inline int sys_openat(int d, const char *p, int f, mode_t m) { return syscall(SYS_openat, d, p, f, m); }
static inline int sys_close(int fd) { return syscall(SYS_close, fd); }

static inline int64_t ret_errno(int64_t r)
{
	if (r < 0) {
		errno = -r;
		return -1;
	}
	return r;
}

/* ---- connection.c ---- */

struct reply {
	int64_t ret;
	struct hs_act_backing backing;
	struct hs_act_pinned pinned;
	struct hs_act_posted posted;
	bool has_backing, has_pinned, has_posted;
	char backing_path[PATH_MAX];
};

int hs_connect(int kind, uint64_t token, int oflags, const char *path, bool cloexec);
int hs_open(const char *path, int flags);
/* sockfs inode of the connection behind fd, or 0: none of ours */
uint64_t hs_ours(int fd);
/* one request and its reply; out may be NULL. Returns out->ret. */
int64_t hs_call(int type, const void *body, size_t len, const void *more, size_t more_len, struct reply *out);
/*
 * Register writes are posted, as on the bus: once the server has said that those in a range cannot fail, they are sent and not waited
 * for, or kept until something else is sent. What is asked afterwards is answered after them.
 */
bool hs_post(int fd, const struct hs_rw *q, const void *bytes);
/* what may be posted besides; NULL: nothing at all any more */
void hs_may_post(int fd, uint64_t ino, const struct hs_act_posted *range);
/* sends what was kept */
void hs_flush(void);
ssize_t hs_copy(bool write, uint64_t addr, void *buf, size_t len);
void hs_caps_changed(void);
int hs_send(int fd, int type, uint32_t seq, const void *a, size_t alen, const void *d, size_t dlen);
int hs_recv(int fd, void *b, size_t n);
/* waits for a call of another thread to end */
void hs_settle(void);

/* ---- events.c ---- */

/* does what an event says; false: no such slot */
bool hs_event_take(const struct hs_event *e);
void hs_event_keep(const struct hs_act_eventfd *ev);
/* the thread calls hs_flush() HS_DEFER_NS from now; false: there is no thread */
bool hs_flush_soon(void);
void hs_events_fork_prepare(void);
void hs_events_fork_parent(void);
void hs_events_forked(void);

/* ---- paths.c ---- */

/* where a path really leads: itself, or buf, which holds the place in the private tree */
const char *hs_path(const char *path, char buf[PATH_MAX]);
/* a device node of the model */
bool hs_is_node(const char *path);
void hs_paths_init(void);
#endif
