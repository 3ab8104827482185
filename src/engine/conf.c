/* conf.c - the engine's configuration: its table, and the sections that carry a label.  Read once at
 * start by the engine process. */
#include "base/conf.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsonx.h"
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
          "auto: the NVIDIA driver when there is one; none; simulated:FLEET: GPUs that do not exist, for tests and demonstrations (a100x8, 3090x8, ... or the path of a description)" },
        { "engine", "gpu_scrub", CONF_STR, C(gpu_scrub), "off", 0, 0, NULL,
          "overwrite a GPU's memory and read it back before another cluster gets it: off, auto (where CUDA is installed) or require (else the GPU is not rented out again)" },
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
        { "engine", "audit_keep", CONF_DURATION, C(audit_keep_us), "90d", 1000000, 315360000000000,
          "time", "how long it is kept who did what, and what clusters did that they should not" },
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
        { "limits", "pids", CONF_U32, C(pids), "32768", 64, 4194304, "processes",
          "processes and threads of a cluster; never more than a quarter of what the kernel has numbers for" },
        { "limits", "io_read", CONF_BYTES, C(io_read_bytes), "0", 0, INT64_MAX, "bytes",
          "how much a cluster may read each second, from its container disk and from its volume each; 0: as fast as it goes" },
        { "limits", "io_write", CONF_BYTES, C(io_write_bytes), "0", 0, INT64_MAX, "bytes",
          "the same for writing; with cgroup v1 what the kernel writes on its own is not counted" },
        { "limits", "io_read_ops", CONF_U32, C(io_read_ops), "0", 0, 0, "operations",
          "how many reads each second; 0: any number" },
        { "limits", "io_write_ops", CONF_U32, C(io_write_ops), "0", 0, 0, "operations",
          "how many writes each second; 0: any number" },
        { "limits", "log_rate", CONF_BYTES, C(log_bytes), "4M", 0, 1 << 30, "bytes",
          "how much a cluster may write to its log each second, after a first 64 MiB; whoever writes faster waits; 0: does not" },
        { "network", "pool", CONF_STR, C(network_pool), "100.96.0.0/16", 0, 0, "IPv4 prefix",
          "addresses of clusters; must not overlap a route of the host" },
        { "network", "dns", CONF_STR, C(dns), "", 0, 0, "addresses",
          "name servers for clusters, separated by commas; empty: the host's" },
        { "network", "resolver", CONF_BOOL, C(resolver), "yes", 0, 0, NULL,
          "clusters ask a resolver of this host, which knows an account's clusters as ID.internal and asks the name servers for all else; no: they ask those themselves" },
        { "network", "allow", CONF_STR, C(network_allow), "", 0, 0, "prefixes",
          "private networks (within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, fc00::/7) that clusters may reach, separated by commas; empty: none but name servers" },
        { "network", "pool6", CONF_STR, C(network_pool6), "", 0, 0, "IPv6 prefix",
          "IPv6 addresses of clusters, a /64 within fc00::/7; empty: one of this host's own; none: clusters get no IPv6" },
        { "network", "bandwidth", CONF_BYTES, C(network_bandwidth), "0", 0, INT64_MAX, "bytes/s",
          "what each cluster may send, and as much that it may receive; counts for networks that are made from then on; 0: no limit" },
        { "network", "connections", CONF_U32, C(network_connections), "4096", 0, 1000000,
          "connections",
          "that the host tracks at once for each address of a cluster; more are dropped; 0: no limit; doctor says what the table of all has room for" },
        { "network", "public_ports", CONF_STR, C(network_public_ports), "20000-29999", 0, 0,
          "ports",
          "ports of this host that clusters' TCP ports are published on, FIRST-LAST; none: no TCP port is published" },
        { "network", "public_ip", CONF_STR, C(network_public_ip), "", 0, 0, "IP address",
          "the address at which clients reach them, told to tenants; empty: the one that this host has on its way out" },
        { "edge", "listen", CONF_STR, C(edge_listen), "127.0.0.1:8443", 0, 0, "ADDRESS:PORT",
          "where clusters' web ports and the API are served by HTTPS; none: nowhere" },
        { "edge", "tenant_domain", CONF_STR, C(edge_tenant_domain), "localhost", 0, 0, "domain",
          "a cluster's port is https://ID-PORT.proxy.tenant_domain; *.proxy.tenant_domain must lead to this host (with localhost it does, on this host)" },
        { "edge", "api_domain", CONF_STR, C(edge_api_domain), "api.localhost", 0, 0, "domain",
          "the API is https://api_domain; must be registered apart from tenant_domain, so that tenants' pages share no cookies with it" },
        { "edge", "public_port", CONF_U32, C(edge_public_port), "0", 0, 65535, "port",
          "the port of the addresses that tenants are told, where something in front passes on another one to listen; 0: that of listen" },
        { "edge", "tenant_certificate", CONF_STR, C(edge_tenant_certificate), "", 0, 0, "path",
          "a certificate for *.proxy.tenant_domain, chain and key: a PEM file, or a directory with fullchain.pem and privkey.pem; a new one is taken up at once; empty: one of this host's own authority" },
        { "edge", "api_certificate", CONF_STR, C(edge_api_certificate), "", 0, 0, "path",
          "the same for api_domain" },
        { "edge", "connections", CONF_U32, C(edge_connections), "10000", 16, 1000000, "connections",
          "of clients, at once; more wait" },
        { "edge", "address_connections", CONF_U32, C(edge_address_connections), "500", 0, 1000000,
          "connections",
          "of one client's address (IPv6: network of 64 bits) at once, and requests that it has open; never more than half of connections; 0: any number" },
        { "edge", "address_requests", CONF_U32, C(edge_address_requests), "200", 0, 1000000,
          "requests",
          "of one such address each second, over ten seconds; more are answered 429; 0: any number" },
        { "edge", "cluster_connections", CONF_U32, C(edge_cluster_connections), "2000", 0, 1000000,
          "requests",
          "and WebSockets that are open at once for one cluster; never more than half of connections; 0: any number" },
        { "edge", "cluster_requests", CONF_U32, C(edge_cluster_requests), "2000", 0, 1000000,
          "requests", "for one cluster each second, likewise; 0: any number" },
        { "edge", "threads", CONF_U32, C(edge_threads), "4", 1, 64, "threads",
          "of HAProxy, never more than there are CPUs" },
        { "edge", "log_requests", CONF_BOOL, C(edge_log_requests), "no", 0, 0, NULL,
          "a line in the log for every request, never with what follows the ? (it may hold a key); no: for none" },
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

#define P(k) .off = offsetof(struct gpu_price_conf, k)

static const struct conf_option gpu_options[] = {
        { "gpu", "on_demand", CONF_PRICE, P(on_demand), "0", 0, 0, "$/GPU/h",
          "what one such GPU costs for an hour" },
        { "gpu", "spot", CONF_PRICE, P(spot), "0", 0, 0, "$/GPU/h",
          "the lowest bid for an interruptible one" },
};

/* The rows of each kind of section begin with their label. */
static const struct labelled {
        const char *section, *label; /* what the label is, for people */
        const struct conf_option *options;
        size_t n, size, list, count;
} labelled[] = {
        { "registry", "HOST[:PORT]", registry_options, NELEM(registry_options),
          sizeof(struct registry_conf), offsetof(struct instance, registries),
          offsetof(struct instance, n_registries) },
        { "gpu", "TYPE", gpu_options, NELEM(gpu_options), sizeof(struct gpu_price_conf),
          offsetof(struct instance, gpu_prices), offsetof(struct instance, n_gpu_prices) },
};
static_assert(offsetof(struct registry_conf, host) == 0 &&
                      offsetof(struct gpu_price_conf, type) == 0,
              "labels come first");

#define LABEL_MAX 255U

/* The row of that label, found or made; NULL: out of memory. */
static void *row_of(struct instance *i, const struct labelled *l, const char *label)
{
        char **list = (char **) ((char *) i + l->list), *grown;
        size_t *n = (size_t *) ((char *) i + l->count);
        char *copy;

        for (size_t k = 0; k < *n; k++)
                if (str_eq(*(char **) (*list + k * l->size), label))
                        return *list + k * l->size;
        copy = strdup(label);
        grown = reallocarray(*list, *n + 1, l->size);
        if (grown)
                *list = grown;
        if (!grown || !copy) {
                free(copy);
                return NULL;
        }
        grown += (*n)++ * l->size;
        memset(grown, 0, l->size);
        *(char **) grown = copy;
        return grown;
}

int instance_labelled(void *arg, const char *section, const char *label, const char *key,
                      const char *value, struct err *e)
{
        for (const struct labelled *l = labelled; l < labelled + NELEM(labelled); l++) {
                AUTO(free) char *name = str_fmt("%s \"%s\"", section, label);
                void *row;

                if (!str_eq(section, l->section))
                        continue;
                if (str_empty(label) || strlen(label) > LABEL_MAX)
                        return err_set(e, -EINVAL, "[%s \"%s\"]: %s has 1 to %u characters",
                                       section, label, l->label, LABEL_MAX);
                row = row_of(arg, l, label);
                if (!row || !name)
                        return err_set(e, -ENOMEM, "out of memory");
                /* to be listed is something, too */
                return key ? conf_set(l->options, l->n, name, key, value, row, e) : 0;
        }
        return err_set(e, -EINVAL, "[%s \"%s\"]: there is no such section", section, label);
}

void instance_labelled_done(struct instance *i)
{
        for (size_t k = 0; k < i->n_registries; k++) {
                free(i->registries[k].host);
                free(i->registries[k].username);
                (void) str_wipe_free(i->registries[k].password);
        }
        for (size_t k = 0; k < i->n_gpu_prices; k++)
                free(i->gpu_prices[k].type);
        free(i->registries);
        free(i->gpu_prices);
}

json_t *instance_prices(const struct instance *i)
{
        AUTO(json_put) json_t *list = json_array();

        for (size_t k = 0; list && k < i->n_gpu_prices; k++) {
                const struct gpu_price_conf *p = &i->gpu_prices[k];

                if (json_array_append_new(list,
                                          json_pack("{s:s, s:f, s:f}", "type", p->type, "on_demand",
                                                    p->on_demand, "spot", p->spot)) < 0)
                        return NULL;
        }
        return TAKE(list);
}

const struct conf_option *instance_gpu_options(size_t *ret_n)
{
        *ret_n = NELEM(gpu_options);
        return gpu_options;
}

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
