/* standalone.h - one host in one command: engine and control plane together. */
#pragma once
#include "base/err.h"

struct standalone_args {
        const char *data_dir, *listen, *config;
};

/* Runs until SIGTERM or SIGINT; prints "ready" on stdout when everything serves. */
int standalone_run(const struct standalone_args *a, struct err *e);
