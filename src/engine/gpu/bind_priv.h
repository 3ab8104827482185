/* bind_priv.h - between bind.c and its parts. */
#pragma once
#include "base/str.h"
#include "engine/gpu/bind.h"
#include "engine/gpu/cdi.h"

#define BIND_STALE "; has the driver changed since? 'nvidia-ctk cdi generate' writes it anew"

struct binder {
        const struct gpu_driver *d;
        const struct gpu *gpus;
        size_t n;
        bool fabric;
        unsigned major;        /* of the GPUs' nodes */
        const char *spec;      /* file, for messages; NULL: our own */
        struct strbuf folders; /* "/dir\n" of update-ldcache hooks */
        struct gpu_binding *b;
        struct err *e;
};

/* For messages. */
const char *bind_spec_name(const struct binder *x);
/* What a library says of itself; 0 also where it is none; -ENOMEM. */
int bind_look_at(const struct gpu_driver *d, struct cdi_mount *m);
/* Open the file that it names.  1: a file, 2: a directory; 0: neither, so it is left out. */
int bind_open(const struct gpu_driver *d, const struct cdi_mount *m, int *ret_fd);
/* Open all that @c names. */
int bind_edits(struct binder *x, const struct cdi_edits *c);

/* ---- bind_source.c: call bind_edits() for what the leased GPUs need */
/* No other GPU is there, by the kernel's count. */
bool bind_has_all(const struct gpu_driver *d, const struct gpu *gpus, size_t n);
int bind_set(struct binder *x, const struct cdi_set *set);
int bind_own(struct binder *x, unsigned caps);

/* ---- bind_proc.c: a detached, read-only mount for /proc/driver */
int bind_proc(const struct gpu_driver *d, const struct gpu *gpus, size_t n, struct err *e);
