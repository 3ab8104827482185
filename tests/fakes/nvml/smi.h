/* smi.h - the parts of the stand-in's nvidia-smi. */
#pragma once
#include "fake.h"

/* The GPUs to speak of, from nvmlDeviceGetHandleByIndex_v2() or as -i names them. */
struct smi_list {
        struct nvml_device *gpus[GPU_SIM_MAX];
        unsigned n;
};
int smi_table(const struct smi_list *l);
int smi_names(const struct smi_list *l); /* -L */
int smi_topology(const struct smi_list *l);
/* --query-gpu=@fields --format=@format */
int smi_query(const struct smi_list *l, const char *fields, const char *format);
