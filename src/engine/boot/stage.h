/* stage.h - one row of the boot table and the functions behind it (this folder only). */
#pragma once
#include "engine/boot/boot.h"
#include "model/limits.h"

struct undo_how {
        bool graceful, volume;
};

struct stage {
        const char *name;
        int (*run)(struct boot *b, struct err *e);
        int (*undo)(struct boot *b, const struct undo_how *how, struct err *e);
};

/* names of a plan's disks, and what its group is held to; @cpus is what *@ret refers to */
void boot_volume_name(const char *cluster, char ret[static 64]);
void boot_limits(const struct boot *b, const struct plan *p, uint32_t cpus[static LIMIT_VCPU],
                 struct slice_limits *ret);
/* Its monitor works for it, on its CPUs: what it writes to its log costs nobody else anything. */
int boot_limit_monitor(const struct boot *b, const struct slice_limits *l, struct err *e);

int stage_plan_run(struct boot *b, struct err *e);
int stage_plan_undo(struct boot *b, const struct undo_how *how, struct err *e);
int stage_shell_run(struct boot *b, struct err *e);
int stage_image_run(struct boot *b, struct err *e);
int stage_disk_run(struct boot *b, struct err *e);
int stage_disk_undo(struct boot *b, const struct undo_how *how, struct err *e);
int stage_gpu_run(struct boot *b, struct err *e);
int stage_net_run(struct boot *b, struct err *e);
int stage_net_undo(struct boot *b, const struct undo_how *how, struct err *e);
int stage_slice_run(struct boot *b, struct err *e);
int stage_slice_undo(struct boot *b, const struct undo_how *how, struct err *e);
int stage_session_run(struct boot *b, struct err *e);
int stage_session_undo(struct boot *b, const struct undo_how *how, struct err *e);
