/*
 * The sockets of a served host, for hostshim-listener.ts: system calls that return what they return, a negated errno where they fail, and what the
 * event loop's polling has found, all of it at once. Node's own streams cost several times what is done with a message, and cannot look for the
 * next one before they go to sleep.
 *
 *     open(path, ready) → what the others take; ready() is called once after each polling that has found something
 *     collect(s, pairs) → what it was: number of [descriptor, UV_* bits] pairs       look(s, us) → 1: there is more already; 0; -1: others want the CPU
 *     accept(s)  receive(fd, bytes, from, to)  send(fd, bytes, from)  interest(s, fd, UV_* bits)  shutdown(fd)  close(s, fd)  stop(s)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "node-api.h"

/* a turn of looking that takes longer than this was somebody else's */
#define TURN_NS 100000

/* uv_handle_t begins with `void *data`; one is allocated with what the libuv that runs says it needs */
struct watched { struct sockets *s; int fd; uv_handle_t *handle; };

struct sockets {
	napi_env env;
	napi_ref ready;
	uv_loop_t *loop;
	uv_handle_t *check;
	struct watched listener;
	bool full;			/* not told of connections: there is no descriptor for one */
	struct watched **by_fd;
	int n_fds;
	struct found { int32_t fd, events; } *found;
	int n_found, room;
};

static napi_value number(napi_env env, int64_t n)
{
	napi_value v = NULL;

	napi_create_int32(env, n, &v);
	return v;
}

static void arguments(napi_env env, napi_callback_info info, napi_value *argv, size_t n)
{
	napi_get_cb_info(env, info, &n, argv, NULL, NULL);
}

static int32_t int_of(napi_env env, napi_value v)
{
	int32_t n = -1;

	napi_get_value_int32(env, v, &n);
	return n;
}

static struct sockets *sockets_of(napi_env env, napi_value v)
{
	void *s = NULL;

	napi_get_value_external(env, v, &s);
	return s;
}

/* the bytes of a typed array of bytes */
static char *bytes_of(napi_env env, napi_value v, size_t *n)
{
	void *data = NULL;

	*n = 0;
	napi_get_typedarray_info(env, v, NULL, n, &data, NULL, NULL);
	return data;
}

static void freed(uv_handle_t *handle)
{
	free(handle);
}

static uv_handle_t *make_handle(int type, void *data)
{
	uv_handle_t *handle = calloc(1, uv_handle_size(type));

	if (handle)
		*(void **)handle = data;
	return handle;
}

static void on_found(uv_handle_t *handle, int status, int events)
{
	struct watched *w = *(void **)handle;
	struct sockets *s = w->s;

	if (s->n_found == s->room) {
		int room = s->room ? 2 * s->room : 64;
		struct found *more = realloc(s->found, room * sizeof(*more));

		if (!more)
			return;		/* it is found again */
		s->found = more;
		s->room = room;
	}
	/* an error ends the watching: what there is to read, and that nothing comes after it, is found by reading */
	s->found[s->n_found++] = (struct found){ w->fd, status ? UV_READABLE | UV_DISCONNECT : events };
}

static void on_polled(uv_handle_t *handle)
{
	struct sockets *s = *(void **)handle;
	napi_env env = s->env;
	napi_handle_scope scope;
	napi_value global, ready, result, exception;

	if (!s->n_found)
		return;
	napi_open_handle_scope(env, &scope);
	napi_get_global(env, &global);
	napi_get_reference_value(env, s->ready, &ready);
	/* which may stop it all */
	if (napi_make_callback(env, NULL, global, ready, 0, NULL, &result) == napi_pending_exception) {
		napi_get_and_clear_last_exception(env, &exception);
		napi_fatal_exception(env, exception);
	}
	napi_close_handle_scope(env, scope);
}

static int watch(struct sockets *s, struct watched *w, int fd, int events)
{
	int e;

	*w = (struct watched){ s, fd, make_handle(UV_POLL, w) };
	if (!w->handle)
		return -ENOMEM;
	e = uv_poll_init(s->loop, w->handle, fd);
	if (e) {
		free(w->handle);
		return e;
	}
	return uv_poll_start(w->handle, events, on_found);
}

static int listen_at(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd, e;

	if (strlen(path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (void *)&sa, sizeof(sa)) || chmod(path, 0600) || listen(fd, SOMAXCONN)) {
		e = errno;
		close(fd);
		return -e;
	}
	return fd;
}

static napi_value sockets_open(napi_env env, napi_callback_info info)
{
	napi_value argv[2], made;
	struct sockets *s = calloc(1, sizeof(*s));
	char path[256] = "";
	int fd, e;

	arguments(env, info, argv, 2);
	if (!s)
		return number(env, -ENOMEM);
	napi_get_value_string_utf8(env, argv[0], path, sizeof(path), NULL);
	fd = listen_at(path);
	if (fd < 0) {
		free(s);
		return number(env, fd);
	}
	s->env = env;
	napi_create_reference(env, argv[1], 1, &s->ready);
	napi_get_uv_event_loop(env, &s->loop);
	s->check = make_handle(UV_CHECK, s);
	e = s->check ? watch(s, &s->listener, fd, UV_READABLE) : -ENOMEM;
	if (e)
		return number(env, e);
	uv_check_init(s->loop, s->check);
	uv_check_start(s->check, on_polled);
	napi_create_external(env, s, NULL, NULL, &made);
	return made;
}

static napi_value sockets_collect(napi_env env, napi_callback_info info)
{
	napi_value argv[2];
	struct sockets *s;
	size_t room;
	void *pairs;
	int n;

	arguments(env, info, argv, 2);
	s = sockets_of(env, argv[0]);
	pairs = bytes_of(env, argv[1], &room);
	n = s->n_found < (int)(room / 2) ? s->n_found : (int)(room / 2);
	memcpy(pairs, s->found, n * sizeof(*s->found));
	s->n_found -= n;
	memmove(s->found, s->found + n, s->n_found * sizeof(*s->found));
	return number(env, n);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static napi_value sockets_look(napi_env env, napi_callback_info info)
{
	napi_value argv[2];
	struct sockets *s;
	struct pollfd p = { .events = POLLIN };
	uint64_t now = now_ns(), next, until;

	arguments(env, info, argv, 2);
	s = sockets_of(env, argv[0]);
	if (s->n_found)
		return number(env, 1);
	p.fd = uv_backend_fd(s->loop);
	until = now + int_of(env, argv[1]) * 1000ULL;
	do {
		if (poll(&p, 1, 0) > 0)
			return number(env, 1);
		sched_yield();
		next = now_ns();
		if (next - now > TURN_NS)
			return number(env, -1);
		now = next;
	} while (now < until);
	return number(env, 0);
}

static napi_value sockets_accept(napi_env env, napi_callback_info info)
{
	napi_value argv[1];
	struct sockets *s;
	struct watched **more;
	int fd, e = 0;

	arguments(env, info, argv, 1);
	s = sockets_of(env, argv[0]);
	fd = accept4(s->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		e = errno;
		if (e == EMFILE || e == ENFILE || e == ENOMEM || e == ENOBUFS)
			s->full = !uv_poll_stop(s->listener.handle);
		return number(env, -e);
	}
	if (fd >= s->n_fds) {
		more = realloc(s->by_fd, 2 * (fd + 1) * sizeof(*more));
		if (more) {
			memset(more + s->n_fds, 0, (2 * (fd + 1) - s->n_fds) * sizeof(*more));
			s->by_fd = more;
			s->n_fds = 2 * (fd + 1);
		}
	}
	if (fd < s->n_fds && (s->by_fd[fd] = malloc(sizeof(struct watched)))) {
		e = watch(s, s->by_fd[fd], fd, UV_READABLE | UV_DISCONNECT);
		if (!e)
			return number(env, fd);
		free(s->by_fd[fd]);
		s->by_fd[fd] = NULL;
	}
	close(fd);
	return number(env, e ? e : -ENOMEM);
}

static napi_value sockets_receive(napi_env env, napi_callback_info info)
{
	napi_value argv[4];
	size_t size;
	char *bytes;
	ssize_t n;
	uint32_t from, to;

	arguments(env, info, argv, 4);
	bytes = bytes_of(env, argv[1], &size);
	from = int_of(env, argv[2]);
	to = int_of(env, argv[3]);
	if (from > to || to > size)
		return number(env, -EFAULT);
	n = recv(int_of(env, argv[0]), bytes + from, to - from, MSG_DONTWAIT);
	return number(env, n < 0 ? -errno : n);
}

static napi_value sockets_send(napi_env env, napi_callback_info info)
{
	napi_value argv[3];
	size_t size;
	char *bytes;
	ssize_t n;
	uint32_t from;

	arguments(env, info, argv, 3);
	bytes = bytes_of(env, argv[1], &size);
	from = int_of(env, argv[2]);
	if (from > size)
		return number(env, -EFAULT);
	n = send(int_of(env, argv[0]), bytes + from, size - from, MSG_DONTWAIT | MSG_NOSIGNAL);
	return number(env, n < 0 ? -errno : n);
}

static struct watched *watched_by(struct sockets *s, int fd)
{
	return fd >= 0 && fd < s->n_fds ? s->by_fd[fd] : NULL;
}

static napi_value sockets_interest(napi_env env, napi_callback_info info)
{
	napi_value argv[3];
	struct watched *w;

	arguments(env, info, argv, 3);
	w = watched_by(sockets_of(env, argv[0]), int_of(env, argv[1]));
	return number(env, w ? uv_poll_start(w->handle, int_of(env, argv[2]), on_found) : -EBADF);
}

static napi_value sockets_shutdown(napi_env env, napi_callback_info info)
{
	napi_value argv[1];

	arguments(env, info, argv, 1);
	return number(env, shutdown(int_of(env, argv[0]), SHUT_WR) ? -errno : 0);
}

/* what was found of it is not told any more: its number may be another's soon */
static void unwatch(struct sockets *s, struct watched *w)
{
	int n = 0;

	for (int i = 0; i < s->n_found; i++)
		if (s->found[i].fd != w->fd)
			s->found[n++] = s->found[i];
	s->n_found = n;
	uv_close(w->handle, freed);
	close(w->fd);
}

static napi_value sockets_close(napi_env env, napi_callback_info info)
{
	napi_value argv[2];
	struct sockets *s;
	struct watched *w;

	arguments(env, info, argv, 2);
	s = sockets_of(env, argv[0]);
	w = watched_by(s, int_of(env, argv[1]));
	if (!w)
		return number(env, -EBADF);
	s->by_fd[w->fd] = NULL;
	unwatch(s, w);
	free(w);
	if (s->full)
		s->full = !!uv_poll_start(s->listener.handle, UV_READABLE, on_found);
	return number(env, 0);
}

/* every connection has been closed */
static napi_value sockets_stop(napi_env env, napi_callback_info info)
{
	napi_value argv[1];
	struct sockets *s;

	arguments(env, info, argv, 1);
	s = sockets_of(env, argv[0]);
	unwatch(s, &s->listener);
	uv_close(s->check, freed);
	napi_delete_reference(env, s->ready);
	free(s->by_fd);
	free(s->found);
	free(s);
	return number(env, 0);
}

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports)
{
	static const struct { const char *name; napi_callback call; } calls[] = {
		{ "open", sockets_open }, { "collect", sockets_collect }, { "look", sockets_look }, { "accept", sockets_accept },
		{ "receive", sockets_receive }, { "send", sockets_send }, { "interest", sockets_interest },
		{ "shutdown", sockets_shutdown }, { "close", sockets_close }, { "stop", sockets_stop },
	};

	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		napi_value f;

		napi_create_function(env, calls[i].name, strlen(calls[i].name), calls[i].call, NULL, &f);
		napi_set_named_property(env, exports, calls[i].name, f);
	}
	return exports;
}
