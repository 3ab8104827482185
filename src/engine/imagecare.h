/* imagecare.h - what the image store needs while nobody pulls: images that are to leave are looked for,
 * and its files are read, slowly, so that what has changed on the disk is found before a cluster does. */
#pragma once
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/host.h"

struct imagecare;
struct fleet;
struct op_runner;

/* All are borrowed. */
int imagecare_new(sd_event *loop, struct op_runner *runner, const struct host *host,
                  struct fleet *fleet, struct imagecare **ret, struct err *e);
/* Runs the loop until what is under way has ended. */
struct imagecare *imagecare_free(struct imagecare *c);
DEFINE_AUTO(struct imagecare *, imagecare_free)
