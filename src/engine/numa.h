/* numa.h - the host's CPUs and memory by NUMA node, for the inventory. */
#pragma once
#include <jansson.h>
#include <sched.h>
#include <stdint.h>

/* ["0","1"]; new reference. */
json_t *numa_cpus_json(const cpu_set_t *cpus);

/* [{"node":0,"cpus":["0"],"memory_mib":N}], new reference: the nodes of @dir (sysfs's) that have CPUs of
 * @cpus; of @memory_mib each has its part.  One node 0 with everything where @dir does not say. */
json_t *numa_read(const char *dir, const cpu_set_t *cpus, uint64_t memory_mib);
