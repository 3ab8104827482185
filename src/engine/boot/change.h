/* change.h - a change of a cluster that runs, for change.c and change_gpu.c alone. */
#pragma once
#include "engine/boot/stage.h"

struct change {
        struct boot *b;
        const struct plan *to, *from;
        char slice[32], disk[64], volume[64];
};

bool change_has_gpus(const struct change *c); /* it is among what shall be another */
int change_gpus_check(const struct change *c, struct err *e);
/* -EBUSY: one that is to go is in use; then nothing has changed. */
int change_gpus(const struct change *c, struct err *e);
int change_gpus_back(const struct change *c, struct err *e);
