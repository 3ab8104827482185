/* doctor_priv.h - what the questions of `doctor` have in common. */
#pragma once
#include <stdarg.h>
#include <stdio.h>

#include "engine/instance.h"

enum grade { GOOD, LESS, MISSING }; /* fine; works with a consequence; clusters cannot run */

struct finding {
        enum grade grade;
        char what[256];
        const char *then; /* what follows, when it is not what the row says */
};

static inline struct finding found(enum grade g, const char *fmt, ...)
        __attribute__((format(printf, 2, 3)));

static inline struct finding found(enum grade g, const char *fmt, ...)
{
        struct finding f = { .grade = g };
        va_list ap;

        va_start(ap, fmt);
        (void) vsnprintf(f.what, sizeof f.what, fmt, ap);
        va_end(ap);
        return f;
}

/* doctor_edge.c */
struct finding doctor_haproxy(const struct instance *conf);
struct finding doctor_edge_address(const struct instance *conf);
struct finding doctor_edge_domains(const struct instance *conf);
struct finding doctor_edge_names(const struct instance *conf);
struct finding doctor_edge_tenant(const struct instance *conf);
struct finding doctor_edge_api(const struct instance *conf);
