/* cdi_make.h - what a cluster needs of the installed driver, put together by ourselves where no
 * operator has written it down: device nodes, libraries, programs, firmware, links, by capability.
 * Operation process, and `cdi generate`; blocks on files alone, runs nothing. */
#pragma once
#include "engine/gpu/cdi.h"
#include "engine/gpu/driver.h"
#include "model/gpu.h"

/* Words of NVIDIA_DRIVER_CAPABILITIES; "all" is the sum. */
#define GPU_CAP_COMPUTE  1U
#define GPU_CAP_UTILITY  2U
#define GPU_CAP_GRAPHICS 4U
#define GPU_CAP_VIDEO    8U
#define GPU_CAP_DISPLAY  16U
#define GPU_CAP_NGX      32U
#define GPU_CAP_COMPAT32 64U
#define GPU_CAP_ALL      127U

/* NULL and "": compute,utility.  -EINVAL names the word and the known ones. */
int gpu_caps_parse(const char *s, unsigned *ret, struct err *e);

/* What all GPUs share.  Fills version, kind, edits and library directories of @ret, which is the
 * caller's to end, also after a failure. */
int cdi_make_common(const struct gpu_driver *d, unsigned caps, struct cdi_spec *ret, struct err *e);
/* Switches and channels, for whoever leases the whole of a fabric. */
int cdi_make_fabric(const struct gpu_driver *d, struct cdi_edits *ret, struct err *e);
/* What is this GPU's (or MIG instance's) own. */
int cdi_make_gpu(const struct gpu_driver *d, const struct gpu *g, unsigned caps,
                 struct cdi_edits *ret, struct err *e);

/* All of the driver and all whole GPUs, as devices by index and UUID and "all". */
int cdi_make_spec(const struct gpu_driver *d, struct cdi_spec *ret, struct err *e);

/* "0000:07:00.0" of the driver's "00000000:07:00.0": as below /proc and /sys. */
void gpu_pci_short(const char *pci, char ret[static 16]);
