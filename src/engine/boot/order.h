/* order.h - a boot, an undo or a change as a message: how the engine tells an operation process what to do.
 *
 * The engine fills a struct boot with names and whatever the pools gave; order_encode() turns it
 * into one JSON object and a list of descriptors; order_run() in the operation turns it back,
 * walks the stages, and reports. */
#pragma once
#include "base/frame.h"
#include "engine/boot/boot.h"

enum order_kind { ORDER_NONE, ORDER_BOOT, ORDER_UNDO, ORDER_CHANGE, ORDER_COUNT };

struct order {
        enum order_kind kind;
        const char *plan;      /* JSON text, as journaled; borrowed */
        const char *was;       /* change: the plan that it runs by; borrowed */
        bool graceful, volume; /* undo */
};

#define ORDER_MAX_FDS (4 + SANDBOX_SHELL_FDS)

/* New reference, or NULL when out of memory; @ret_fds are borrowed from @b. */
json_t *order_encode(const struct order *o, const struct boot *b, int ret_fds[static ORDER_MAX_FDS],
                     size_t *ret_n);

/* Back again: @ret gets kind and flags (no plan), @b, which boot_init() has made, the rest.  @b takes
 * the message's descriptors.  -EPROTO, or what plan_decode() says. */
int order_decode(struct frame_msg *msg, struct order *ret, struct boot *b, struct err *e);

/* op_order_fn; @host: struct host. */
int order_run(struct frame_conn *out, struct frame_msg *msg, void *host, struct err *e);
