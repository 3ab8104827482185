/* refused.h - which refused devices of a cluster are told, and when: each device once an hour, with how
 * often it was tried meanwhile.  Engine process, loop thread; pure but for what it is handed. */
#pragma once
#include <stdint.h>

#include "base/mem.h"
#include "engine/slice/slice.h"

#define REFUSED_EVERY_US (3600ULL * 1000000ULL)
#define REFUSED_TOLD_MAX 16U /* devices in an hour; the last place is of all others */

struct refused;

/* A cluster whose group is new; @before: what was counted when it was found running, and is nobody's
 * news; NULL: nothing.  NULL: out of memory. */
struct refused *refused_new(const struct slice_refusals *before);
struct refused *refused_free(struct refused *s);
DEFINE_AUTO(struct refused *, refused_free)

/* What is counted at @now_us (monotonic): @tell gets a sentence for each device that is due. */
void refused_look(struct refused *s, const struct slice_refusals *now, uint64_t now_us,
                  void (*tell)(void *arg, const char *sentence), void *arg);
