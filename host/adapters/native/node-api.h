/*
 * The part of Node-API that sockets.c uses (nodejs.org/api/n-api.html, version 3, whose ABI is stable), and of libuv, whose functions the
 * program exports. Written down here because a node that runs comes without its headers as often as with them.
 */
#ifndef NODE_API_H
#define NODE_API_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_ref__ *napi_ref;
typedef struct napi_handle_scope__ *napi_handle_scope;
typedef struct napi_callback_info__ *napi_callback_info;
typedef struct napi_async_context__ *napi_async_context;
typedef struct uv_loop_s uv_loop_t;
typedef struct uv_handle_s uv_handle_t;
typedef int napi_status;		/* napi_ok is 0, napi_pending_exception is 10 */
typedef int napi_typedarray_type;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);
typedef void (*napi_finalize)(napi_env, void *, void *);

#define napi_ok 0
#define napi_pending_exception 10

napi_status napi_create_function(napi_env, const char *, size_t, napi_callback, void *, napi_value *);
napi_status napi_set_named_property(napi_env, napi_value, const char *, napi_value);
napi_status napi_get_cb_info(napi_env, napi_callback_info, size_t *, napi_value *, napi_value *, void **);
napi_status napi_get_value_int32(napi_env, napi_value, int32_t *);
napi_status napi_create_int32(napi_env, int32_t, napi_value *);
napi_status napi_get_value_string_utf8(napi_env, napi_value, char *, size_t, size_t *);
napi_status napi_get_typedarray_info(napi_env, napi_value, napi_typedarray_type *, size_t *, void **, napi_value *, size_t *);
napi_status napi_create_external(napi_env, void *, napi_finalize, void *, napi_value *);
napi_status napi_get_value_external(napi_env, napi_value, void **);
napi_status napi_create_reference(napi_env, napi_value, uint32_t, napi_ref *);
napi_status napi_get_reference_value(napi_env, napi_ref, napi_value *);
napi_status napi_delete_reference(napi_env, napi_ref);
napi_status napi_get_global(napi_env, napi_value *);
napi_status napi_open_handle_scope(napi_env, napi_handle_scope *);
napi_status napi_close_handle_scope(napi_env, napi_handle_scope);
napi_status napi_make_callback(napi_env, napi_async_context, napi_value, napi_value, size_t, const napi_value *, napi_value *);
napi_status napi_get_and_clear_last_exception(napi_env, napi_value *);
napi_status napi_fatal_exception(napi_env, napi_value);
napi_status napi_get_uv_event_loop(napi_env, uv_loop_t **);

enum { UV_CHECK = 2, UV_POLL = 8 };	/* uv_handle_type */
enum { UV_READABLE = 1, UV_WRITABLE = 2, UV_DISCONNECT = 4 };
size_t uv_handle_size(int);
int uv_backend_fd(const uv_loop_t *);
int uv_check_init(uv_loop_t *, uv_handle_t *);
int uv_check_start(uv_handle_t *, void (*)(uv_handle_t *));
int uv_poll_init(uv_loop_t *, uv_handle_t *, int);
int uv_poll_start(uv_handle_t *, int, void (*)(uv_handle_t *, int, int));
int uv_poll_stop(uv_handle_t *);
void uv_close(uv_handle_t *, void (*)(uv_handle_t *));
#endif
