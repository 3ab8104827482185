/* conf.c - the engine's configuration table.  Read once at start by the engine process. */
#include "base/conf.h"

#include <errno.h>

#include "base/str.h"
#include "engine/instance.h"

#define C(k) .off = offsetof(struct engine_conf, k)

#define FILE_BYTES_MOST  (1ULL << 43) /* no file of an image is larger */
#define IMAGE_BYTES_MOST (1ULL << 50) /* twice that is still the length that a file may have */

static const struct conf_option options[] = {
        { "engine", "cpu_overcommit", CONF_FACTOR, C(cpu_overcommit), "1", 0, 0, NULL,
          "vCPUs sold per logical CPU; above 1 clusters share CPUs by quota instead of owning them" },
        { "engine", "memory_overcommit", CONF_FACTOR, C(memory_overcommit), "1", 0, 0, NULL,
          "memory sold per byte of memory" },
        { "engine", "disk_overcommit", CONF_FACTOR, C(disk_overcommit), "1", 0, 0, NULL,
          "disk sold per byte of disk; at 1 volumes are allocated in full when they are made" },
        { "engine", "gpu_driver", CONF_STR, C(gpu_driver), "auto", 0, 0, NULL,
          "auto: the NVIDIA driver when there is one; none" },
        { "engine", "require_apparmor", CONF_BOOL, C(require_apparmor), "no", 0, 0, NULL,
          "refuse to start where the kernel has no AppArmor" },
        { "engine", "pool_networks", CONF_U32, C(pool_networks), "4", 0, 256, "namespaces",
          "ready network namespaces kept ahead of demand" },
        { "engine", "pool_disks", CONF_U32, C(pool_disks), "2", 0, 64, "disks",
          "formatted container disks kept ahead, for each size that was used lately" },
        { "engine", "parallel_ops", CONF_U32, C(parallel_ops), "8", 1, 256, "processes",
          "boots and stops that may run at once; the rest waits its turn" },
        { "engine", "parallel_pulls", CONF_U32, C(parallel_pulls), "6", 1, 64, "images",
          "images that may be pulled or uploaded at once; accounts take turns, and none has more than half of the places" },
        { "engine", "parallel_layers", CONF_U32, C(parallel_layers), "3", 1, 16, "processes",
          "layers of one image that are fetched at once" },
        { "engine", "image_max", CONF_BYTES, C(image_max_bytes), "256G", 1 << 20, IMAGE_BYTES_MOST,
          "bytes", "how large one image may become when it is unpacked" },
        { "engine", "registry_silence", CONF_DURATION, C(registry_silence_us), "30s", 1000000,
          3600000000, "time",
          "how long a registry may send nothing, or less than registry_rate, before the attempt is given up" },
        { "engine", "registry_rate", CONF_BYTES, C(registry_rate_bytes), "1K", 1, 1 << 30, "bytes",
          "how much a registry must send each second on average; five attempts in a row that bring less end the pull" },
        { "engine", "pull_timeout", CONF_DURATION, C(pull_timeout_us), "2h", 1000000, 604800000000,
          "time", "how long one pull or upload may take in all" },
        { "engine", "grace", CONF_DURATION, C(grace_us), "10s", 0, 600000000, "time",
          "how long a stopped cluster's first process may take between TERM and KILL" },
        { "engine", "log_level", CONF_STR, C(log_level), "info", 0, 0, NULL,
          "error, warning, info or debug" },
        { "images", "object_threshold", CONF_BYTES, C(object_threshold), "128K", 0, FILE_BYTES_MOST,
          "bytes",
          "files of this size and more are kept once per host, whatever image brings them; 0: no file is" },
        { "images", "mount", CONF_STR, C(image_mount), "auto", 0, 0, NULL,
          "how images are mounted: auto, file (Linux 6.12 and later) or loop (by loop devices)" },
        { "images", "keep", CONF_DURATION, C(image_keep_us), "30d", 0, 0, "time",
          "how long an image stays that no cluster uses; it is pulled again when it is needed; 0: for ever" },
        { "images", "floor", CONF_BYTES, C(image_floor_bytes), "4G", 0, INT64_MAX, "bytes",
          "disk space that is kept free, but at most a tenth of the disk: images that no cluster uses go for it, least recently used first; 0: none does" },
        { "images", "expire_uploads", CONF_BOOL, C(image_expire_uploads), "no", 0, 0, NULL,
          "let go of uploaded images, too, which cannot be pulled again" },
        { "images", "scrub", CONF_DURATION, C(image_scrub_us), "7d", 0, 0, "time",
          "every file of the image store is read once in so long, and what has changed is quarantined; 0: never" },
        { "network", "pool", CONF_STR, C(network_pool), "100.96.0.0/16", 0, 0, "IPv4 prefix",
          "addresses of clusters; must not overlap a route of the host" },
        { "network", "dns", CONF_STR, C(dns), "", 0, 0, "addresses",
          "name servers for clusters, separated by commas; empty: the host's" },
        { "network", "allow", CONF_STR, C(network_allow), "", 0, 0, "IPv4 prefixes",
          "private networks (within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10) that clusters may reach, separated by commas; empty: none but name servers" },
};

#define R(k) .off = offsetof(struct registry_conf, k)

static const struct conf_option registry_options[] = {
        { "registry", "insecure", CONF_BOOL, R(insecure), "no", 0, 0, NULL,
          "speak plain HTTP to it" },
        { "registry", "username", CONF_STR, R(username), "", 0, 0, NULL,
          "the name to log in with" },
        { "registry", "password", CONF_STR, R(password), "", 0, 0, NULL,
          "its password or token; keep the file readable by root alone" },
};

const struct conf_option *instance_registry_options(size_t *ret_n)
{
        *ret_n = NELEM(registry_options);
        return registry_options;
}

const struct conf_option *instance_options(size_t *ret_n)
{
        *ret_n = NELEM(options);
        return options;
}
