/* Connections to the server: framing, the process's CONTROL connection, requests and the actions of their replies. */
#include "hostshim.h"
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif
/* the shim's own descriptors keep out of the program's numbering */
#define HIGH_FD 900

bool hs_trace, hs_assume_root;
char hs_socket[108];
uint64_t hs_cap_mask = ~0ULL;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int ctl_fd = -1;
static pid_t ctl_pid;
static uint64_t ctl_cookie;
static uint32_t ctl_seq;
/* messages of posted writes that go with the next one */
static char kept[512];
static size_t kept_len;
/*
 * An answer is looked for so long before the thread sleeps: most are there sooner than it would be awake again. A turn that takes longer than
 * TURN_NS was somebody else's, who wants the CPU.
 */
#define SOON_NS 200000
#define TURN_NS 100000

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t sl = sizeof(cookie);

	return syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, &cookie, &sl) ? 0 : cookie;
}

static void atfork_prepare(void)
{
	pthread_mutex_lock(&lock);
	hs_events_fork_prepare();
}
static void atfork_parent(void)
{
	hs_events_fork_parent();
	pthread_mutex_unlock(&lock);
}
static void atfork_child(void)
{
	/* the program may have closed it, and used the number again */
	if (ctl_fd >= 0 && cookie_of(ctl_fd) == ctl_cookie)
		sys_close(ctl_fd);
	ctl_fd = -1;
	kept_len = 0;
	hs_events_forked();
	pthread_mutex_init(&lock, NULL);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
}

__attribute__((constructor(101))) static void hostshim_init(void)
{
	const char *p = getenv("NESTBOX_HOST_SOCKET");

	snprintf(hs_socket, sizeof(hs_socket), "%s", p ? p : "");
	hs_trace = getenv("NESTBOX_HOST_TRACE") != NULL;
	hs_assume_root = getenv("NESTBOX_HOST_ROOT") != NULL;
	hs_paths_init();
	if (!hs_socket[0])
		return;
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	pthread_atfork(atfork_prepare, atfork_parent, atfork_child);
}

/* ---- framing ---- */

static int send_all(int fd, struct iovec *iov, int n)
{
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = n };

	while (m.msg_iovlen) {
		ssize_t r = syscall(SYS_sendmsg, fd, &m, MSG_NOSIGNAL);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return -1;
		while (m.msg_iovlen && (size_t)r >= m.msg_iov->iov_len) {
			r -= m.msg_iov->iov_len;
			m.msg_iov++;
			m.msg_iovlen--;
		}
		if (m.msg_iovlen) {
			m.msg_iov->iov_base = (char *)m.msg_iov->iov_base + r;
			m.msg_iov->iov_len -= r;
		}
	}
	return 0;
}

int hs_recv(int fd, void *b, size_t n)
{
	while (n) {
		ssize_t r = sys_read(fd, b, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return -1;
		b = (char *)b + r;
		n -= r;
	}
	return 0;
}

int hs_send(int fd, int type, uint32_t seq, const void *a, size_t alen, const void *d, size_t dlen)
{
	struct hs_hdr h = { .len = sizeof(h) + alen + dlen, .type = type, .seq = seq };
	struct iovec iov[] = { { &h, sizeof(h) }, { (void *)a, alen }, { (void *)d, dlen } };

	return send_all(fd, iov, 3);
}

/* ---- capabilities ---- */

static uint64_t cap_eff(void)
{
	char buf[4096], *p;
	ssize_t n;
	int fd;

	if (hs_assume_root)
		return hs_cap_mask;
	fd = sys_openat(AT_FDCWD, "/proc/self/status", O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	n = sys_read(fd, buf, sizeof(buf) - 1);
	sys_close(fd);
	if (n <= 0)
		return 0;
	buf[n] = 0;
	p = strstr(buf, "CapEff:");
	return p ? strtoull(p + 7, NULL, 16) : 0;
}

static uint64_t caps_cache;
static bool caps_valid;

void hs_caps_changed(void) { caps_valid = false; }

static uint16_t cap_flags(void)
{
	if (!caps_valid) {
		caps_cache = cap_eff();
		caps_valid = true;
	}
	return (caps_cache >> CAP_IPC_LOCK & 1 ? HS_CAP_IPC_LOCK : 0) |
	       (caps_cache >> CAP_SYS_RESOURCE & 1 ? HS_CAP_SYS_RESOURCE : 0) |
	       (caps_cache >> CAP_SYS_RAWIO & 1 ? HS_CAP_SYS_RAWIO : 0);
}

/* ---- connections ---- */

/* returns fd or -errno */
int hs_connect(int kind, uint64_t token, int oflags, const char *path, bool cloexec)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct hs_hello h = { .version = HS_VERSION, .kind = kind };
	struct { struct hs_hdr h; struct hs_hello_ack a; } ack;
	struct stat st;
	int fd;

	if (!hs_socket[0])
		return -ENOENT;
	fd = syscall(SYS_socket, AF_UNIX, SOCK_STREAM | (cloexec ? SOCK_CLOEXEC : 0), 0);
	if (fd < 0)
		return -errno;
	memcpy(sa.sun_path, hs_socket, sizeof(hs_socket));
	if (syscall(SYS_connect, fd, &sa, sizeof(sa))) {
		sys_close(fd);
		return -ENOENT;
	}
	if (kind != HS_OPEN && kind != HS_OBJ) {
		int hi = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, HIGH_FD);

		if (hi >= 0) {
			sys_close(fd);
			fd = hi;
		}
	}
	syscall(SYS_fstat, fd, &st);
	h.cookie = cookie_of(fd);
	h.pid = getpid();
	h.tid = syscall(SYS_gettid);
	h.uid = hs_assume_root ? 0 : geteuid();
	h.gid = hs_assume_root ? 0 : getegid();
	h.cap_eff = cap_eff();
	h.ino = st.st_ino;
	h.token = token;
	h.open_flags = oflags;
	h.path_len = path ? strlen(path) : 0;
	if (hs_send(fd, HS_HELLO, 0, &h, sizeof(h), path, h.path_len) ||
	    hs_recv(fd, &ack, sizeof(ack)) || ack.h.type != HS_HELLO_ACK) {
		sys_close(fd);
		return -EIO;
	}
	if (ack.a.err) {
		sys_close(fd);
		return ack.a.err;
	}
	return fd;
}

/* with lock held */
static int ctl(void)
{
	/* another process after a raw clone() or vfork(); or the program closed, and used again, all numbers it does not know */
	if (ctl_fd >= 0 && cookie_of(ctl_fd) != ctl_cookie)
		ctl_fd = -1;
	if (ctl_fd >= 0 && ctl_pid != getpid()) {
		sys_close(ctl_fd);
		ctl_fd = -1;
	}
	if (ctl_fd < 0) {
		kept_len = 0;
		ctl_fd = hs_connect(HS_CONTROL, 0, 0, NULL, true);
		ctl_pid = getpid();
		ctl_cookie = cookie_of(ctl_fd);
	}
	return ctl_fd;
}

/* The server knows a process before it opens anything. */
int hs_open(const char *path, int flags)
{
	int fd;

	pthread_mutex_lock(&lock);
	fd = ctl();
	pthread_mutex_unlock(&lock);
	return fd < 0 ? fd : hs_connect(HS_OPEN, 0, flags, path, flags & O_CLOEXEC);
}

/*
 * What a descriptor was found to be, by its number; good for as long as the socket behind it is the same. Read and written without
 * a lock: an entry whose cookie changes meanwhile does not count.
 */
#define KNOWN 1024
static struct { uint64_t cookie, ino; } known[KNOWN];

/*
 * The path that the server gave its socket, which is another than hs_socket where this process sees the folder elsewhere (a chroot). It
 * is what a connection that came through exec or another process is known by.
 */
static const char *peer_path(void)
{
	static char path[sizeof(hs_socket) + 1];
	static bool known;
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t sl = sizeof(sa);
	int fd;

	if (__atomic_load_n(&known, __ATOMIC_ACQUIRE))
		return path;
	fd = syscall(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	memcpy(sa.sun_path, hs_socket, sizeof(hs_socket));
	if (fd >= 0 && !syscall(SYS_connect, fd, &sa, sizeof(sa)) && !syscall(SYS_getpeername, fd, &sa, &sl) &&
	    sl > offsetof(struct sockaddr_un, sun_path)) {
		memcpy(path, sa.sun_path, MIN(sl - offsetof(struct sockaddr_un, sun_path), sizeof(hs_socket)));
		__atomic_store_n(&known, true, __ATOMIC_RELEASE);
	}
	if (fd >= 0)
		sys_close(fd);
	return path;
}

uint64_t hs_ours(int fd)
{
	struct sockaddr_un sa;
	socklen_t sl = sizeof(sa);
	uint64_t cookie, ino = 0;
	struct stat st;
	int e = errno;

	if (fd < 0 || !hs_socket[0])
		return 0;
	cookie = cookie_of(fd);
	if (!cookie)
		goto out;
	if (fd < KNOWN && __atomic_load_n(&known[fd].cookie, __ATOMIC_ACQUIRE) == cookie) {
		ino = __atomic_load_n(&known[fd].ino, __ATOMIC_ACQUIRE);
		if (__atomic_load_n(&known[fd].cookie, __ATOMIC_ACQUIRE) == cookie)
			goto out;
		ino = 0;
	}
	if (!syscall(SYS_getpeername, fd, &sa, &sl) && sa.sun_family == AF_UNIX &&
	    sl > offsetof(struct sockaddr_un, sun_path) && sa.sun_path[0] &&
	    !strncmp(sa.sun_path, peer_path(), sizeof(sa.sun_path)) && !syscall(SYS_fstat, fd, &st))
		ino = st.st_ino;
	if (fd < KNOWN) {
		__atomic_store_n(&known[fd].cookie, 0, __ATOMIC_RELEASE);
		__atomic_store_n(&known[fd].ino, ino, __ATOMIC_RELEASE);
		__atomic_store_n(&known[fd].cookie, cookie, __ATOMIC_RELEASE);
	}
out:
	errno = e;
	return ino;
}

/* ---- requests ---- */

ssize_t hs_copy(bool write, uint64_t addr, void *buf, size_t len)
{
	struct iovec l = { buf, len }, r = { (void *)addr, len };
	ssize_t n;

	if (!len)
		return 0;
	n = syscall(write ? SYS_process_vm_writev : SYS_process_vm_readv, getpid(), &l, 1UL, &r, 1UL, 0UL);
	return n < 0 ? -errno : n;
}

static void install_fd(const struct hs_act_fd *f, struct reply *out)
{
	int fd = hs_connect(HS_OBJ, f->token, f->flags, NULL, f->flags & O_CLOEXEC);

	if (fd < 0) {
		out->ret = fd;
	} else if (!f->patch_addr) {
		out->ret = fd;
	} else if (hs_copy(true, f->patch_addr, &fd, 4) != 4) {
		sys_close(fd);
		out->ret = -EFAULT;
	}
}

static void run_actions(struct hs_rsp *rsp, char *p, char *end, struct reply *out)
{
	for (uint32_t i = 0; i < rsp->n_actions && p + sizeof(struct hs_act) <= end; i++) {
		struct hs_act *a = (void *)p;
		char *pl = p + sizeof(*a);
		size_t n;

		if (a->len > (size_t)(end - pl))
			return;
		p = pl + ((a->len + 7) & ~7UL);
		switch (a->type) {
		case HS_ACT_WRITE:
			n = a->len - sizeof(struct hs_act_write);
			if (hs_copy(true, ((struct hs_act_write *)pl)->addr, pl + sizeof(struct hs_act_write), n) != (ssize_t)n)
				out->ret = -EFAULT;
			break;
		case HS_ACT_FD:
			install_fd((void *)pl, out);
			break;
		case HS_ACT_EVENTFD:
			hs_event_keep((void *)pl);
			break;
		case HS_ACT_SIGNAL:
			hs_event_take((void *)pl);
			break;
		case HS_ACT_BACKING:
			memcpy(&out->backing, pl, sizeof(out->backing));
			/* beside the socket */
			snprintf(out->backing_path, sizeof(out->backing_path), "%.*s/%.*s",
				 (int)(strrchr(hs_socket, '/') - hs_socket), hs_socket,
				 (int)(a->len - sizeof(out->backing)), pl + sizeof(out->backing));
			out->has_backing = true;
			break;
		case HS_ACT_POSTED:
			memcpy(&out->posted, pl, sizeof(out->posted));
			out->has_posted = true;
			break;
		case HS_ACT_PINNED:
			memcpy(&out->pinned, pl, sizeof(out->pinned));
			out->has_pinned = true;
			break;
		}
	}
}

/* a message after what was kept; with lock held */
static int send_request(int fd, int type, const void *a, size_t alen, const void *d, size_t dlen)
{
	struct hs_hdr h = { .len = sizeof(h) + alen + dlen, .type = type, .flags = cap_flags(), .seq = ++ctl_seq };
	struct iovec iov[] = { { kept, kept_len }, { &h, sizeof(h) }, { (void *)a, alen }, { (void *)d, dlen } };

	kept_len = 0;
	return send_all(fd, iov, 4);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

/* what there is of an answer */
static ssize_t recv_some(int fd, void *b, size_t n)
{
	uint64_t now = now_ns(), until = now + SOON_NS, before;
	ssize_t r;

	do {
		r = syscall(SYS_recvfrom, fd, b, n, MSG_DONTWAIT, NULL, NULL);
		if (r >= 0 || (errno != EAGAIN && errno != EINTR))
			return r;
		/* whoever has something to do goes first: the server, where there is one CPU */
		sched_yield();
		before = now;
		now = now_ns();
	} while (now < until && now - before < TURN_NS);
	do
		r = sys_read(fd, b, n);
	while (r < 0 && errno == EINTR);
	return r;
}

/* the whole answer: in buf, or allocated where it is larger; NULL: the connection is broken */
static struct hs_hdr *recv_reply(int fd, void *buf, size_t room)
{
	struct hs_hdr *h = buf;
	ssize_t have = recv_some(fd, buf, room);

	if (have <= 0 || (have < (ssize_t)sizeof(*h) && hs_recv(fd, (char *)buf + have, sizeof(*h) - have)))
		return NULL;
	if (have < (ssize_t)sizeof(*h))
		have = sizeof(*h);
	if (h->type != HS_RSP || h->len < sizeof(*h) + sizeof(struct hs_rsp) || h->len < (size_t)have)
		return NULL;
	if (h->len > room) {
		h = malloc(h->len);
		if (!h)
			return NULL;
		memcpy(h, buf, have);
	}
	if (hs_recv(fd, (char *)h + have, h->len - have)) {
		if (h != buf)
			free(h);
		return NULL;
	}
	return h;
}

int64_t hs_call(int type, const void *a, size_t alen, const void *d, size_t dlen, struct reply *out)
{
	char small[1024] __attribute__((aligned(8)));
	struct reply tmp;
	struct hs_hdr *h;
	int fd;

	out = out ? out : &tmp;
	memset(out, 0, offsetof(struct reply, backing_path));
	out->ret = -EIO;
	pthread_mutex_lock(&lock);
	fd = ctl();
	if (fd >= 0) {
		h = send_request(fd, type, a, alen, d, dlen) ? NULL : recv_reply(fd, small, sizeof(small));
		if (h) {
			struct hs_rsp *rsp = (void *)(h + 1);

			out->ret = rsp->ret;
			run_actions(rsp, (char *)(rsp + 1), (char *)h + h->len, out);
			if ((char *)h != small)
				free(h);
		} else {
			sys_close(fd);
			ctl_fd = -1;
		}
	}
	pthread_mutex_unlock(&lock);
	return out->ret;
}

/* by number of the descriptor; guarded by lock */
#define MOST_RANGES 4
static struct posted { uint64_t ino; uint32_t ranges, next; struct hs_act_posted range[MOST_RANGES]; } posted[KNOWN];

void hs_may_post(int fd, uint64_t ino, const struct hs_act_posted *range)
{
	struct posted *p = &posted[fd];

	if (fd >= KNOWN || (p->ino != ino && (!range || range->from == range->to)))
		return;
	pthread_mutex_lock(&lock);
	if (p->ino != ino || !range)
		*p = (struct posted){ .ino = ino };
	if (range && range->from < range->to) {
		p->range[p->next] = *range;
		p->next = (p->next + 1) % MOST_RANGES;
		if (p->ranges < MOST_RANGES)
			p->ranges++;
	}
	pthread_mutex_unlock(&lock);
}

/* how a write may be posted; 0: not */
static uint32_t how_posted(const struct posted *p, const struct hs_rw *q)
{
	for (uint32_t i = 0; p->ino == q->ino && i < p->ranges; i++) {
		const struct hs_act_posted *r = &p->range[i];
		uint64_t at = q->pos - r->from;

		if ((uint64_t)q->pos >= r->from && q->pos + q->count <= r->to &&
		    (!r->every || at % r->every + q->count <= r->width))
			return r->how;
	}
	return 0;
}

bool hs_post(int fd, const struct hs_rw *q, const void *bytes)
{
	size_t len = sizeof(struct hs_hdr) + sizeof(*q) + q->count;
	bool sent = false;
	uint32_t how;
	int conn;

	if (fd >= KNOWN || posted[fd].ino != q->ino)
		return false;
	pthread_mutex_lock(&lock);
	how = how_posted(&posted[fd], q);
	if (how) {
		conn = ctl();
		sent = conn >= 0;
		if (sent && how == HS_POST_DEFERRED && kept_len + len <= sizeof(kept) && hs_flush_soon()) {
			struct hs_hdr h = { .len = len, .type = HS_POST, .flags = cap_flags(), .seq = ++ctl_seq };

			memcpy(kept + kept_len, &h, sizeof(h));
			memcpy(kept + kept_len + sizeof(h), q, sizeof(*q));
			memcpy(kept + kept_len + sizeof(h) + sizeof(*q), bytes, q->count);
			kept_len += len;
		} else if (sent) {
			sent = !send_request(conn, HS_POST, q, sizeof(*q), bytes, q->count);
		}
	}
	pthread_mutex_unlock(&lock);
	return sent;
}

void hs_flush(void)
{
	struct iovec iov = { kept, 0 };
	int conn;

	pthread_mutex_lock(&lock);
	conn = kept_len ? ctl() : -1;
	iov.iov_len = kept_len;
	kept_len = 0;
	if (conn >= 0)
		send_all(conn, &iov, 1);
	pthread_mutex_unlock(&lock);
}

void hs_settle(void)
{
	pthread_mutex_lock(&lock);
	pthread_mutex_unlock(&lock);
}
