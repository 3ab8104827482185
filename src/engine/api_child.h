/* api_child.h - in standalone mode the engine starts and supervises tensorone-api itself. */
#pragma once
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/instance.h"

struct api_child;

struct api_child_spec {
        sd_event *loop;
        const struct instance *inst;
        int listen_fd;              /* bound and listening; borrowed */
        const char *cluster_domain; /* DOMAIN[:PORT] of clusters' web ports; NULL: none; borrowed */
        void (*on_ready)(void *arg); /* it serves; called after every start of it */
        void *arg;
};

/* Start it under its own uid; restarted with a pause when it ends by itself. */
int api_child_start(const struct api_child_spec *spec, struct api_child **ret, struct err *e);
/* TERM, up to 5 s, KILL.  Blocks. */
struct api_child *api_child_stop(struct api_child *c);
DEFINE_AUTO(struct api_child *, api_child_stop)
