/* runtime.h - HAProxy's runtime socket, spoken to without waiting: commands go out in batches, answers
 * come back in their order.
 *
 * Engine process, loop thread. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"

struct runtime;

struct runtime_spec {
        sd_event *loop;
        int fd; /* connected; taken over, in every case */
        uint64_t
                patience_us; /* an answer that takes longer never comes; time in which we did not run either begins anew */
        /* The answer to the command of that number, without blanks at its ends; "" is what most have to say. */
        void (*answer)(void *arg, uint64_t number, const char *text);
        /* It is of no use any more; the owner frees it, but not from within one of these two. */
        void (*lost)(void *arg, const char *why);
        void *arg;
};

int runtime_new(const struct runtime_spec *spec, struct runtime **ret, struct err *e);
struct runtime *runtime_free(struct runtime *r);
DEFINE_AUTO(struct runtime *, runtime_free)

/* Send @n commands, each with its newline.  Returns the number of the last of all that were said: they count from 1.  What cannot
 * be sent ends in spec.lost, later. */
uint64_t runtime_say(struct runtime *r, const char *commands, size_t n);
