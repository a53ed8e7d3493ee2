/*
 * Eventfds of this process that the host signals, or listens to. The number that SET_IRQS names may be closed at once: a duplicate is kept
 * in a slot until the server drops it. One thread takes what the server says, and tells it what arrives at the watched ones.
 */
#include "hostshim.h"
#include <poll.h>
#include <signal.h>
#include <sys/timerfd.h>
#include <time.h>

/* not every architecture has poll itself */
static int sys_poll(struct pollfd *fds, unsigned int n, const struct timespec *timeout)
{
	struct timespec t = timeout ? *timeout : (struct timespec){ 0, 0 };

	return syscall(SYS_ppoll, fds, n, timeout ? &t : NULL, NULL, 0);
}

#define MAX_SLOTS 65536
#define MAX_WATCHED 256
#define HIGH_FD 900

static struct slot { uint64_t token; int fd; bool watch; } *slots;
static uint32_t n_slots;
static int events_conn = -1, wake_pipe[2] = { -1, -1 }, timer = -1;
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;

bool hs_event_take(const struct hs_event *e)
{
	bool found;

	pthread_mutex_lock(&table);
	found = e->slot < n_slots && slots[e->slot].token == e->token;
	if (found && e->op == HS_EVENT_SIGNAL) {
		sys_write(slots[e->slot].fd, &e->count, 8);
	} else if (found && e->op == HS_EVENT_DROP) {
		sys_close(slots[e->slot].fd);
		slots[e->slot].token = 0;
	}
	pthread_mutex_unlock(&table);
	return found;
}

/* a watched eventfd holds something: it is taken, and the server told */
static void arrived(uint32_t slot, uint64_t token, int fd)
{
	struct hs_event e = { .token = token, .slot = slot, .op = HS_EVENT_ARRIVED };
	struct pollfd p = { fd, POLLIN, 0 };

	if (sys_poll(&p, 1, &(struct timespec){ 0, 0 }) == 1 && sys_read(fd, &e.count, 8) == 8)
		hs_send(events_conn, HS_EVENT, 0, &e, sizeof(e), NULL, 0);
}

static void *events_thread(void *unused)
{
	static struct pollfd polled[3 + MAX_WATCHED];
	static struct { uint64_t token; uint32_t slot; } which[3 + MAX_WATCHED];

	(void)unused;
	for (;;) {
		struct { struct hs_hdr h; struct hs_event e; } m;
		char c[64];
		int n = 3;

		polled[0] = (struct pollfd){ events_conn, POLLIN, 0 };
		polled[1] = (struct pollfd){ wake_pipe[0], POLLIN, 0 };
		polled[2] = (struct pollfd){ timer, POLLIN, 0 };
		pthread_mutex_lock(&table);
		for (uint32_t i = 0; i < n_slots && n < 3 + MAX_WATCHED; i++)
			if (slots[i].token && slots[i].watch) {
				polled[n] = (struct pollfd){ slots[i].fd, POLLIN, 0 };
				which[n].token = slots[i].token;
				which[n++].slot = i;
			}
		pthread_mutex_unlock(&table);
		if (sys_poll(polled, n, NULL) < 0)
			continue;
		for (int i = 3; i < n; i++)
			if (polled[i].revents & POLLIN)
				arrived(which[i].slot, which[i].token, polled[i].fd);
		if (polled[1].revents & POLLIN)
			sys_read(wake_pipe[0], c, sizeof(c));
		if (polled[2].revents & POLLIN) {
			sys_read(timer, c, sizeof(c));
			hs_flush();
		}
		if (!polled[0].revents)
			continue;
		if (hs_recv(events_conn, &m, sizeof(m)))
			return NULL;
		if (m.h.type == HS_EVENT && !hs_event_take(&m.e)) {
			/* told before the reply that names it was acted on */
			hs_settle();
			hs_event_take(&m.e);
		}
	}
}

bool hs_flush_soon(void)
{
	struct itimerspec soon = { .it_value = { 0, HS_DEFER_NS } };

	return timer >= 0 && !syscall(SYS_timerfd_settime, timer, 0, &soon, NULL);
}

/* keeps out of the program's numbering */
static void raise_fd(int *fd)
{
	int high = syscall(SYS_fcntl, *fd, F_DUPFD_CLOEXEC, HIGH_FD);

	if (high >= 0) {
		sys_close(*fd);
		*fd = high;
	}
}

/* Not when a device is opened: the descriptor may have come through exec or a socket. */
static void start(void)
{
	pthread_t t;
	sigset_t all, old;

	events_conn = hs_connect(HS_EVENTS, 0, 0, NULL, true);
	if (events_conn < 0)
		return;
	if (!syscall(SYS_pipe2, wake_pipe, O_CLOEXEC | O_NONBLOCK))
		for (int i = 0; i < 2; i++)
			raise_fd(&wake_pipe[i]);
	timer = syscall(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	raise_fd(&timer);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (!pthread_create(&t, NULL, events_thread, NULL))
		pthread_detach(t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void hs_event_keep(const struct hs_act_eventfd *ev)
{
	int fd = syscall(SYS_fcntl, ev->fd, F_DUPFD_CLOEXEC, HIGH_FD);

	if (fd < 0)
		fd = syscall(SYS_fcntl, ev->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (ev->slot >= MAX_SLOTS) {
		sys_close(fd);
		return;
	}
	pthread_mutex_lock(&table);
	if (ev->slot >= n_slots) {
		uint32_t n = ev->slot < 64 ? 64 : 2 * ev->slot;
		struct slot *more = realloc(slots, n * sizeof(*slots));

		if (more) {
			memset(more + n_slots, 0, (n - n_slots) * sizeof(*more));
			slots = more;
			n_slots = n;
		}
	}
	if (ev->slot < n_slots) {
		/* the slot is given again before the thread has been told to drop what was there */
		if (slots[ev->slot].token)
			sys_close(slots[ev->slot].fd);
		slots[ev->slot] = (struct slot){ ev->token, fd, ev->watch };
	} else {
		sys_close(fd);
	}
	pthread_mutex_unlock(&table);
	if (events_conn < 0)
		start();
	if (ev->watch)
		sys_write(wake_pipe[1], "", 1);
}

void hs_events_fork_prepare(void) { pthread_mutex_lock(&table); }
void hs_events_fork_parent(void) { pthread_mutex_unlock(&table); }

/* a child has neither the thread nor anything to do with the parent's eventfds */
void hs_events_forked(void)
{
	for (uint32_t i = 0; i < n_slots; i++)
		if (slots[i].token)
			sys_close(slots[i].fd);
	if (events_conn >= 0)
		sys_close(events_conn);
	for (int i = 0; i < 2; i++)
		if (wake_pipe[i] >= 0)
			sys_close(wake_pipe[i]);
	if (timer >= 0)
		sys_close(timer);
	free(slots);
	slots = NULL;
	n_slots = 0;
	events_conn = wake_pipe[0] = wake_pipe[1] = timer = -1;
	pthread_mutex_init(&table, NULL);
}
