/* edge_traffic.c - see edge_traffic.h.
 *
 * What always holds: at most one question about a cluster is open; a connection that is of no use is given
 * up and made again by a later question, and until then nothing is known. */
#include "engine/edge_traffic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/str.h"
#include "edge/runtime.h"
#include "engine/edge_child.h"
#include "engine/op/listen.h"

#define PATIENCE_US (10 * US_PER_S)
#define AGAIN_US    (5 * US_PER_S)   /* between two connections */
#define FORGET_US   (300 * US_PER_S) /* nobody asks about it any more */
#define TIDY_EVERY  256U

struct row {
        uint64_t bytes, asked_us;
        uint64_t question; /* number of the one that is open; 0: none */
        uint32_t open;
        bool known;
};

struct edge_traffic {
        sd_event *loop;
        const struct instance *inst;
        struct map *rows; /* cluster -> struct row, owned */
        struct runtime *runtime;
        bool lost;
        uint64_t tried_us;
        unsigned asked;
};

struct edge_traffic *edge_traffic_new(sd_event *loop, const struct instance *inst)
{
        struct edge_traffic *t = calloc(1, sizeof *t);

        if (!t)
                return NULL;
        t->loop = loop;
        t->inst = inst;
        t->rows = map_new();
        return t->rows ? t : edge_traffic_free(t);
}

struct edge_traffic *edge_traffic_free(struct edge_traffic *t)
{
        if (!t)
                return NULL;
        t->runtime = runtime_free(t->runtime);
        for (struct map_entry *i = t->rows ? map_first(t->rows) : NULL; i; i = map_next(i))
                free(map_value(i));
        t->rows = map_free(t->rows);
        free(t);
        return NULL;
}

/* "... name=77 ..."; 0 when it is not there. */
static uint64_t number_of(const char *text, const char *name)
{
        const char *at = strstr(text, name);
        uint64_t n = 0;

        if (at)
                (void) str_u64_prefix(at + strlen(name), 10, &n);
        return n;
}

/* No words: nothing has come for it, or nothing for so long that HAProxy has forgotten it. */
static void on_answer(void *arg, uint64_t number, const char *text)
{
        struct edge_traffic *t = arg;
        uint64_t open = number_of(text, " conn_cur=");

        for (struct map_entry *i = map_first(t->rows); i; i = map_next(i)) {
                struct row *row = map_value(i);

                if (row->question != number)
                        continue;
                row->question = 0;
                row->known = !*text || str_after(text, "# table: ");
                row->bytes = number_of(text, " bytes_in_cnt=") + number_of(text, " bytes_out_cnt=");
                row->open = open < UINT32_MAX ? (uint32_t) open : UINT32_MAX;
                return;
        }
}

static void on_lost(void *arg, const char *why)
{
        struct edge_traffic *t = arg;

        log_debug("haproxy: %s; its counters are not known for a while", why);
        t->lost = true; /* it must not be freed from in here */
}

static void give_up(struct edge_traffic *t)
{
        t->runtime = runtime_free(t->runtime);
        t->lost = false;
        for (struct map_entry *i = map_first(t->rows); i; i = map_next(i)) {
                struct row *row = map_value(i);

                row->question = 0;
                row->known = false;
        }
}

static bool connected(struct edge_traffic *t, uint64_t now)
{
        struct runtime_spec spec = { .loop = t->loop,
                                     .patience_us = PATIENCE_US,
                                     .answer = on_answer,
                                     .lost = on_lost,
                                     .arg = t };

        if (t->runtime && t->lost)
                give_up(t);
        if (t->runtime)
                return true;
        if (t->tried_us && now < t->tried_us + AGAIN_US)
                return false;
        t->tried_us = now;
        spec.fd = op_connect(t->inst->run_fd, EDGE_ADMIN_SOCKET, NULL);
        return spec.fd >= 0 && runtime_new(&spec, &t->runtime, NULL) >= 0;
}

static void tidy(struct edge_traffic *t, uint64_t now)
{
        for (struct map_entry *i = map_first(t->rows), *next; i; i = next) {
                const struct row *row = map_value(i);

                next = map_next(i);
                if (row->asked_us + FORGET_US < now)
                        free(map_del(t->rows, map_key(i)));
        }
}

static struct row *row_of(struct edge_traffic *t, const char *cluster)
{
        struct row *row = map_get(t->rows, cluster);

        if (row)
                return row;
        row = calloc(1, sizeof *row);
        if (row && map_set(t->rows, cluster, row) < 0) {
                free(row);
                return NULL;
        }
        return row;
}

bool edge_traffic_of(struct edge_traffic *t, const char *cluster, uint64_t *ret_bytes,
                     uint32_t *ret_open)
{
        uint64_t now = clock_mono_us();
        struct row *row = row_of(t, cluster);
        char question[64];

        if (!row)
                return false;
        row->asked_us = now;
        if (++t->asked % TIDY_EVERY == 0)
                tidy(t, now);
        if (!connected(t, now))
                return false;
        if (!row->question && snprintf(question, sizeof question, "show table traffic key %s\n",
                                       cluster) < (int) sizeof question)
                row->question = runtime_say(t->runtime, question, 1);
        *ret_bytes = row->bytes;
        *ret_open = row->open;
        return row->known;
}
