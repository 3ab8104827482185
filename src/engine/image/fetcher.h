/* fetcher.h - one vmm-fetch: started in its sandbox, listened to, ended.  Operation processes only.
 * Nothing that it says is trusted beyond its own image (model/fetchwire.h). */
#pragma once
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"
#include "engine/instance.h"
#include "model/fetchwire.h"

struct fetcher {
        const struct instance *inst;
        const struct image_guard *guard; /* or NULL */
        void *cell;                      /* its, while it runs */
        pid_t pid;                       /* 0: none */
        int pidfd, result_fd, id_fd;
        struct strbuf in;
        bool ended;     /* the process is gone and what it said is complete */
        bool done;      /* it said "done" */
        bool killed;    /* by a SIGKILL that was not ours: may be started again */
        struct err err; /* why not, once it has ended without */
        uint64_t done_bytes, unpacked_bytes;
        struct fetch_image image;
        bool have_image;
};

/* Safe to end. */
#define FETCHER_NONE                                                                               \
        (struct fetcher)                                                                           \
        {                                                                                          \
                .pidfd = -EBADF, .result_fd = -EBADF, .id_fd = -EBADF                              \
        }

struct fetcher_spec {
        const char *mode; /* "manifest", "layer", "import", "build" */
        const struct fetch_request *req;
        int dir_fd;       /* the only directory that it may write; readable; -EBADF: none */
        int input_fd;     /* its descriptor 0; -EBADF: /dev/null */
        const int *extra; /* what it gets from FETCH_FD_FIRST_FREE on */
        size_t n_extra;
        bool apart; /* in a network namespace with nothing in it */
};

/* Start.  Blocks about 2 ms.  The caller ends *@ret with fetcher_end() in every case. */
struct image_guard;
int fetcher_start(const struct instance *inst, const struct image_guard *guard,
                  const struct fetcher_spec *spec, struct fetcher *ret, struct err *e);

/* Its result descriptor is readable: take in what is there, or some of it.  A breach of the protocol
 * kills it. */
void fetcher_hear(struct fetcher *f);

/* Kill if it still runs, reap, free. */
void fetcher_end(struct fetcher *f);
