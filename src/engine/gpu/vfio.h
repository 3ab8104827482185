/* vfio.h - which GPUs of this host could be handed to a virtual machine as they are (VFIO), and what
 * is in the way: IOMMU groups, their members, bound drivers, how each can be reset.  Reads sysfs
 * below a descriptor and changes nothing; any process, blocks on files alone. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

#define VFIO_NO_GROUP UINT32_MAX

struct vfio_device {
        char pci[16];    /* "0000:07:00.0" */
        char driver[32]; /* bound now; "": none */
        char resets[64]; /* "flr bus", in the order in which the kernel tries them; "": none */
        uint32_t vendor, device;
        uint32_t class;     /* 24 bits: base, sub-class, interface */
        uint32_t group;     /* IOMMU group or VFIO_NO_GROUP */
        uint32_t numa_node; /* or UINT32_MAX */
};

struct vfio_inventory {
        struct vfio_device *devices; /* every PCI device, in the order of their addresses */
        size_t n;
        bool iommu;    /* there are groups */
        bool vfio_pci; /* the driver is loaded */
        bool unsafe;   /* groups are made without an IOMMU (enable_unsafe_noiommu_mode) */
};

/* @sys: a descriptor of sysfs's root, or of a tree that looks like it.  No PCI bus: an empty list. */
int vfio_read(int sys, struct vfio_inventory *ret, struct err *e);
void vfio_done(struct vfio_inventory *v);

/* A display controller or a co-processor: what clusters rent. */
bool vfio_is_gpu(const struct vfio_device *d);
bool vfio_is_bridge(const struct vfio_device *d); /* stays with the host, whoever has the group */

/* What has to be done before device @i could be given to a machine, a sentence each; none: it could
 * be now.  Returns a vector in @ret (NULL when there is nothing). */
int vfio_needs(const struct vfio_inventory *v, size_t i, char ***ret);

/* {"iommu":..,"vfio_pci":..,"devices":[{"pci":..,"driver":..,"group":..,"members":[..],"resets":"..",
 * "needs":[..]}]} of the GPUs; new reference or NULL. */
json_t *vfio_encode(const struct vfio_inventory *v);
/* One line for people: "2 GPUs, 1 could be handed over now". */
void vfio_summary(const struct vfio_inventory *v, char *ret, size_t size);

static inline void vfio_done_cleanup(struct vfio_inventory *v)
{
        vfio_done(v);
}
