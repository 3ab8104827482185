/* gpus.h - what the verbs about GPUs share: asking for them, and how their numbers look. */
#pragma once
#include <jansson.h>

#include "base/err.h"
#include "base/str.h"
#include "cli/api.h"

/* Every GPU of the host and the host itself: {gpus: [...], machines: [...]}, new reference.  The
 * operator's key alone may ask. */
int gpu_list(struct api *a, json_t **ret, struct err *e);

/* A number of @gpu's telemetry; NaN: the driver does not say. */
double gpu_number(const json_t *gpu, const char *name);

/* `get gpus --vfio`: asked and printed. */
struct cli;
int gpu_vfio(struct cli *c, struct err *e);

/* How the GPUs of gpu_list() are joined, as a table of tabs: `nvidia-smi topo -m` has the same columns. */
void gpu_topology(const json_t *gpus, struct strbuf *out);
/* Which of them reach into each other's memory, as `nvidia-smi topo -p2p` prints it. */
void gpu_p2p(const json_t *gpus, struct strbuf *out);
