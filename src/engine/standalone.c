/* standalone.c - opens the modules in order, runs the loop, closes them in reverse.
 *
 * What outlives this process on purpose: running clusters (processes, groups, links, the firewall
 * table, claims under /run).  When none is left at the end, all of that is removed too. */
#include "engine/standalone.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/api_child.h"
#include "engine/boot/order.h"
#include "engine/channel/channel.h"
#include "engine/claim/claim.h"
#include "engine/dns_child.h"
#include "engine/edge_child.h"
#include "engine/edge_keys.h"
#include "engine/edge_run.h"
#include "engine/edge_traffic.h"
#include "engine/fleet/fetch_guard.h"
#include "engine/kaudit/kaudit.h"
#include "engine/fleet/fleet.h"
#include "engine/gpu/bind.h"
#include "engine/gpu/driver.h"
#include "engine/gpu/gpuhost.h"
#include "engine/gpu/handover.h"
#include "engine/host.h"
#include "engine/idmap.h"
#include "engine/image/base.h"
#include "engine/imagecare.h"
#include "engine/instance.h"
#include "engine/inventory.h"
#include "engine/journal/journal.h"
#include "engine/net/net.h"
#include "engine/op/op.h"
#include "engine/pool/pool.h"
#include "engine/sandbox/apparmor.h"
#include "engine/sandbox/sandbox.h"
#include "engine/slice/slice.h"
#include "engine/sshtree.h"
#include "engine/sweep.h"
#include "engine/tcp_listen.h"
#include "engine/upkeep.h"

#define SPARE_OPS       4
#define LOOP_PRIORITY   (-10)
#define GPU_WAIT_US     (3 * US_PER_S)
#define IN_USE_TRIES    40
#define IN_USE_PAUSE_US 50000

struct standalone {
        struct instance *inst;
        struct host host;
        struct gpu_driver gpu_driver;
        struct sshtree ssh;
        struct journal *journal;
        sd_event *loop;
        struct op_runner *runner;
        struct upkeep *upkeep;
        struct imagecare *care;
        struct pool *pool;
        struct channel *channel;
        struct kaudit *kaudit; /* NULL: this host does not tell */
        struct handover *handover;
        struct fleet *fleet;
        struct api_child *api;
        struct dns_child *dns;
        struct edge_child *edge;      /* NULL: none is wanted; */
        struct edge_traffic *traffic; /* nor this, then */
        char *cluster_domain;         /* that the API is told; the same */
        struct edge_keys *edge_keys;
        json_t *inventory;
        int listen_fd, inner_fd;
        bool api_ready, edge_ready, synced, said_ready, stopping;
};

static void standalone_init(struct standalone *s)
{
        *s = (struct standalone){ .listen_fd = -EBADF, .inner_fd = -EBADF };
        s->ssh.mnt = -EBADF;
        s->host.disks = s->host.volumes = s->host.clusters = s->gpu_driver.root_fd = -EBADF;
}

static int on_any_claim(void *arg, const char *kind, uint32_t number, const char *cluster,
                        uint64_t generation)
{
        (void) kind;
        (void) number;
        (void) cluster;
        (void) generation;
        *(bool *) arg = true;
        return -ECANCELED;
}

/* Whether nothing on this host needs what open_host() made: also after a start that failed early,
 * when there may still be clusters of an engine before us. */
static bool is_empty(const struct standalone *s)
{
        bool held = false;

        if (s->fleet)
                return fleet_count_held(s->fleet) == 0;
        if (!s->host.claims)
                return false; /* not ours to say */
        (void) claim_each(s->host.claims, on_any_claim, &held);
        return !held;
}

/* Remove what only makes sense with clusters. */
static void remove_host(struct standalone *s)
{
        struct err e = { 0 };

        edge_run_end(s->inst->run_fd); /* an engine before us may have left it */
        if (s->host.net && net_host_remove(s->host.net, &e) < 0)
                log_warn("%s", e.msg);
        if (s->host.slices && slice_host_remove(s->host.slices, &e) < 0)
                log_warn("%s", e.msg);
        if (s->host.images && image_base_tidy(s->host.images, NULL, 0, &e) < 0)
                log_warn("%s", e.msg);
        if (instance_remove_run(s->inst) < 0)
                log_warn("the run directory could not be removed");
}

static void standalone_done(struct standalone *s)
{
        struct err e = { 0 };
        bool empty;

        s->api = api_child_stop(s->api);
        free(s->cluster_domain);
        s->dns = dns_child_stop(s->dns);
        s->traffic = edge_traffic_free(s->traffic);
        s->edge_keys = edge_keys_free(s->edge_keys);
        s->care = imagecare_free(s->care);
        s->kaudit = kaudit_free(s->kaudit);
        if (s->fleet)
                fleet_stop(s->fleet); /* its last reports still go out */
        empty = is_empty(s); /* what was under way may have been the last that held anything */
        if (s->upkeep) {
                upkeep_watch_images(s->upkeep, NULL, NULL);
                upkeep_watch_policies(s->upkeep, NULL, NULL);
        }
        s->fleet = fleet_free(s->fleet);
        s->edge = empty ? edge_child_stop(s->edge) : edge_child_leave(s->edge);
        if (s->channel)
                channel_set_fleet(s->channel, NULL);
        if (s->channel)
                channel_set_gpus(s->channel, NULL);
        s->host.gpuhost = gpuhost_free(s->host.gpuhost);
        s->handover = handover_free(s->handover);
        s->channel = channel_free(s->channel);
        s->pool = pool_free(s->pool);
        s->upkeep = upkeep_free(s->upkeep);
        s->runner = op_runner_free(s->runner);
        s->inner_fd = fd_close(s->inner_fd);
        /* pulls that were under way have been ended */
        if (s->host.slices && fetch_guard_tidy(&s->host, true, &e) < 0)
                log_warn("%s", e.msg);
        s->host.gpu_driver = NULL;
        gpu_driver_close(&s->gpu_driver);
        sshtree_close(s->inst, &s->ssh);
        if (empty)
                remove_host(s);
        s->journal = journal_close(s->journal);
        s->host.images = image_store_close(s->host.images);
        s->host.apparmor = apparmor_close(s->host.apparmor);
        s->host.net = net_host_close(s->host.net);
        s->host.slices = slice_host_close(s->host.slices);
        s->host.claims = claim_close(s->host.claims);
        s->inventory = json_put(s->inventory);
        (void) fd_close(s->host.disks);
        (void) fd_close(s->host.volumes);
        (void) fd_close(s->host.clusters);
        (void) fd_close(s->listen_fd);
        s->loop = sd_event_unref(s->loop);
        s->inst = instance_close(s->inst);
}

static inline void standalone_done_cleanup(struct standalone *s)
{
        standalone_done(s);
}

/* After a kill -9 the API of the engine before us holds its sockets for a moment longer. */
static int retry_while_in_use(int (*open_it)(struct standalone *s, const char *arg, struct err *e),
                              struct standalone *s, const char *arg, struct err *e)
{
        int r = open_it(s, arg, e);

        for (int i = 0; r == -EADDRINUSE && i < IN_USE_TRIES; i++) {
                (void) usleep(IN_USE_PAUSE_US);
                r = open_it(s, arg, e);
        }
        return r;
}

/* What clusters are published on is nobody else's. */
static int check_listeners(const struct standalone *s, const char *listen, struct err *e)
{
        const struct port_range public = net_public_ports(s->host.net);
        int r = tcp_listen_check_public("--listen", listen, public, e);

        return r < 0 || !instance_has_edge(s->inst)
                       ? r
                       : tcp_listen_check_public(INSTANCE_EDGE_LISTEN, s->inst->conf.edge_listen,
                                                 public, e);
}

static int try_listen(struct standalone *s, const char *arg, struct err *e)
{
        return s->listen_fd = tcp_listen("--listen", arg, e);
}

static int try_service(struct standalone *s, const char *arg, struct err *e)
{
        (void) arg;
        return s->inner_fd = net_service_listen(s->host.net, e);
}

static void each_name(void *arg, dns_name_fn *fn, void *fn_arg)
{
        const struct standalone *s = arg;

        fleet_each_name(s->fleet, fn, fn_arg);
}

static int try_resolver(struct standalone *s, const char *arg, struct err *e)
{
        struct dns_child_spec spec = {
                .loop = s->loop, .host = &s->host, .each = each_name, .arg = s
        };
        int r;

        (void) arg;
        if (!s->inst->conf.resolver)
                return 0;
        r = net_resolver_listen(s->host.net, &spec.udp, &spec.tcp, e);
        return r < 0 ? r : dns_child_start(&spec, &s->dns, e);
}

static void on_named(void *arg, uint32_t slot, const char *account, const char *cluster)
{
        const struct standalone *s = arg;

        if (s->dns) /* else it is told of all when it starts */
                dns_child_name(s->dns, slot, account, cluster);
}

static bool on_traffic(void *arg, const char *cluster, struct fleet_traffic *ret)
{
        const struct standalone *s = arg;

        return s->traffic && edge_traffic_of(s->traffic, cluster, &ret->bytes, &ret->connections);
}

static void on_routed(void *arg, const char *cluster, const struct edge_to *to)
{
        const struct standalone *s = arg;

        if (s->edge)
                edge_child_route(s->edge, cluster, to);
}

static bool is_unrouted(void *arg, const char *cluster)
{
        const struct standalone *s = arg;

        return !s->edge || edge_child_is_unrouted(s->edge, cluster);
}

/* Mounts of ours are nobody else's, and end with us; the host's changes still reach us. */
static int private_mounts(struct err *e)
{
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
                return err_errno(e, -errno, "make a private mount namespace");
        return 0;
}

/* Said at the start rather than by each cluster's first boot. */
static int check_id_maps(struct image_store *images, struct err *e)
{
        AUTO(fd) int userns = idmap_userns(claim_id_base(1), e);
        AUTO(fd) int mnt = userns < 0 ? userns : image_objects_clone(images, e);
        int r = mnt < 0 ? mnt : idmap_mount(mnt, userns, 0, e);

        if (r == -EINVAL)
                return err_wrap(
                        e, r,
                        "the file system of the data directory has no id maps (ext4, xfs and btrfs have; tmpfs has from Linux 6.3 on)");
        return r;
}

/* Without, clusters are held by everything else, unless the operator wants it all or nothing. */
static int open_apparmor(struct standalone *s, struct err *e)
{
        struct err why = { 0 };
        int r = apparmor_open(s->inst, &s->host.apparmor, &why);

        if (r != -EOPNOTSUPP)
                return r < 0 ? err_copy(e, &why) : 0;
        if (s->inst->conf.require_apparmor)
                return err_set(e, r, "require_apparmor = yes: %s", why.msg);
        log_warn("clusters run without a profile of their own: %s", why.msg);
        return 0;
}

static int open_host(struct standalone *s, struct err *e)
{
        struct host *h = &s->host;
        int r = claim_open(s->inst, &h->claims, e);

        h->inst = s->inst;
        if (r >= 0)
                r = slice_host_open(s->inst->id, 0, &h->slices, e);
        if (r >= 0)
                r = slice_host_limit_pids(h->slices, s->inst->pids_all, e);
        if (r >= 0)
                r = net_host_open(s->inst, h->claims, &h->net, e);
        if (r >= 0)
                r = open_apparmor(s, e);
        if (r >= 0)
                sweep_dead_instances(h);
        instance_give_room(s->inst);
        if (r >= 0)
                r = image_store_open(s->inst, &h->images, e);
        if (r >= 0)
                r = check_id_maps(h->images, e);
        if (r >= 0)
                r = fetch_guard_tidy(h, true, e); /* ends whoever may still be writing there */
        if (r >= 0)
                r = image_recover(h->images, e);
        if (r >= 0)
                r = h->disks = instance_dir(s->inst, "disks", e);
        if (r >= 0)
                r = h->volumes = instance_dir(s->inst, "volumes", e);
        if (r >= 0)
                r = h->clusters = instance_dir(s->inst, "clusters", e);
        if (r >= 0)
                r = gpu_driver_open(s->inst, &s->gpu_driver, e);
        if (r >= 0)
                gpu_bind_prepare(&s->gpu_driver);
        if (r < 0)
                return r;
        h->gpu_driver = &s->gpu_driver;
        h->ssh = &s->ssh;
        r = sandbox_prepare(e);
        if (r >= 0)
                r = sshtree_open(s->inst, &s->ssh, e);
        if (r >= 0)
                r = sandbox_hold_programs(s->inst->libexec, e);
        if (r >= 0 && s->inst->conf.object_threshold && !sandbox_overlay_objects()) {
                log_info("images: this kernel cannot share large files (Linux 6.5 and later can)");
                s->inst->conf.object_threshold = 0;
        }
        return r;
}

static void say_ready(struct standalone *s)
{
        if (!s->api_ready || !s->synced || s->said_ready || !gpuhost_is_known(s->host.gpuhost) ||
            (s->edge && !s->edge_ready))
                return;
        s->said_ready = true;
        (void) puts("ready");
        (void) fflush(stdout);
        (void) sd_notify(0, "READY=1");
}

static void on_api_ready(void *arg)
{
        struct standalone *s = arg;

        s->api_ready = true;
        say_ready(s);
}

static void on_synced(void *arg)
{
        struct standalone *s = arg;

        s->synced = true;
        if (s->edge_keys)
                edge_keys_begin(s->edge_keys);
        say_ready(s);
}

static int on_keys(void *arg, const json_t *msg, struct err *e)
{
        const struct standalone *s = arg;

        return s->edge_keys ? edge_keys_take(s->edge_keys, msg, e) : 0;
}

static void on_edge_ready(void *arg)
{
        struct standalone *s = arg;

        s->edge_ready = true;
        say_ready(s);
}

static void on_edge_unrouted(void *arg, const char *cluster)
{
        const struct standalone *s = arg;

        if (s->fleet)
                fleet_unrouted(s->fleet, cluster);
}

static int open_edge(struct standalone *s, struct err *e)
{
        const struct edge_child_spec spec = { .loop = s->loop,
                                              .inst = s->inst,
                                              .api_fd = s->listen_fd,
                                              .on_ready = on_edge_ready,
                                              .on_unrouted = on_edge_unrouted,
                                              .arg = s };

        int r = edge_child_start(&spec, &s->edge, e);

        if (r < 0 || !s->edge)
                return r;
        s->traffic = edge_traffic_new(s->loop, s->inst);
        return s->traffic ? edge_keys_new(s->loop, s->inst, &s->edge_keys, e)
                          : err_set(e, -ENOMEM, "out of memory");
}

static void on_gpus(void *arg)
{
        struct standalone *s = arg;

        if (s->fleet)
                fleet_gpus_changed(s->fleet, gpuhost_fleet(s->host.gpuhost));
        if (s->channel)
                channel_gpus_changed(s->channel);
        say_ready(s);
}

static void on_gpu_telemetry(void *arg, const json_t *msg)
{
        struct standalone *s = arg;

        if (s->channel)
                channel_gpu_telemetry(s->channel, msg);
}

static void on_gpu_event(void *arg, const json_t *msg)
{
        struct standalone *s = arg;

        if (s->fleet)
                fleet_gpu_event(s->fleet, msg);
        if (s->channel)
                channel_gpu_event(s->channel, msg);
}

/* Until the journal was read, every GPU may be. */
static bool gpu_is_leased(void *arg, const char *uuid)
{
        const struct standalone *s = arg;

        return !s->fleet || fleet_gpu_holder(s->fleet, uuid);
}

static const char *gpu_open_in(void *arg, const char *uuid)
{
        const struct standalone *s = arg;

        return s->fleet ? fleet_gpu_open_in(s->fleet, uuid) : NULL;
}

/* Clusters that are resumed want to know their GPUs; a driver that takes longer holds up nobody else. */
static int open_gpus(struct standalone *s, struct err *e)
{
        const struct gpuhost_spec spec = { .loop = s->loop,
                                           .host = &s->host,
                                           .journal = s->journal,
                                           .driver = &s->gpu_driver,
                                           .changed = on_gpus,
                                           .telemetry = on_gpu_telemetry,
                                           .event = on_gpu_event,
                                           .is_leased = gpu_is_leased,
                                           .open_in = gpu_open_in,
                                           .arg = s };
        uint64_t until = clock_mono_us() + GPU_WAIT_US, now;
        int r = gpuhost_new(&spec, &s->host.gpuhost, e);

        while (r >= 0 && !s->stopping && !gpuhost_is_known(s->host.gpuhost) &&
               (now = clock_mono_us()) < until)
                r = sd_event_run(s->loop, until - now);
        return r;
}

static int open_handover(struct standalone *s, struct err *e)
{
        const struct handover_spec spec = { .loop = s->loop,
                                            .gpuhost = s->host.gpuhost,
                                            .journal = s->journal,
                                            .runner = s->runner,
                                            .driver = &s->gpu_driver,
                                            .inst = s->inst };

        return handover_new(&spec, &s->handover, e);
}

static void on_kaudit(void *arg, uint32_t slot, const char *kind, const char *message)
{
        struct standalone *s = arg;

        if (s->fleet)
                fleet_security(s->fleet, slot, kind, message);
}

static int open_service(struct standalone *s, struct err *e)
{
        const struct channel_spec ch = { .loop = s->loop,
                                         .host = &s->host,
                                         .epoch = journal_epoch(s->journal),
                                         .peer_uid = CLAIM_API_UID,
                                         .inventory = s->inventory,
                                         .inner_fd = s->inner_fd,
                                         .on_synced = on_synced,
                                         .on_keys = on_keys,
                                         .arg = s };
        struct fleet_spec fl = { .loop = s->loop,
                                 .host = &s->host,
                                 .journal = s->journal,
                                 .runner = s->runner,
                                 .report = channel_report,
                                 .security = channel_security_event };
        struct err why = { 0 };
        int r = open_gpus(s, e);

        if (r >= 0)
                r = open_handover(s, e);
        if (r >= 0)
                r = pool_new(s->loop, s->runner, &s->host, journal_epoch(s->journal), &s->pool, e);

        if (r >= 0)
                r = upkeep_new(s->loop, s->runner, &s->host, &s->upkeep, e);
        if (r >= 0)
                r = channel_new(&ch, &s->channel, e);
        if (r < 0)
                return r;
        fl.pool = s->pool;
        fl.handover = s->handover;
        fl.arg = s->channel;
        fl.released = upkeep_released;
        fl.image_died = upkeep_image_died;
        fl.upkeep = s->upkeep;
        fl.named = on_named;
        fl.routed = on_routed;
        fl.unrouted = is_unrouted;
        fl.names = s;
        fl.traffic = on_traffic;
        fl.edge = s;
        r = fleet_new(&fl, &s->fleet, e);
        if (r < 0)
                return r;
        if (kaudit_new(s->loop, on_kaudit, s, &s->kaudit, &why) < 0)
                log_info("what seccomp and AppArmor stop in clusters is not told: %s", why.msg);
        channel_set_fleet(s->channel, s->fleet);
        channel_set_gpus(s->channel, s->host.gpuhost);
        gpuhost_claims_changed(s->host.gpuhost); /* what the journal's clusters may have open */
        fleet_gpus_changed(s->fleet, gpuhost_fleet(s->host.gpuhost));
        upkeep_watch_images(s->upkeep, fleet_images, s->fleet);
        upkeep_watch_policies(s->upkeep, fleet_net_policy, s->fleet);
        r = retry_while_in_use(try_resolver, s, NULL, e);
        if (r < 0)
                return r;
        fleet_images_tidy(s->fleet);
        r = imagecare_new(s->loop, s->runner, &s->host, s->fleet, &s->care, e);
        if (r < 0)
                return r;
        pool_start(s->pool);
        return 0;
}

/* The loop itself goes on: modules that end still wait on it for their operations. */
static int on_stop(sd_event_source *src, const struct signalfd_siginfo *si, void *arg)
{
        struct standalone *s = arg;

        (void) src;
        log_info("stopping (signal %u)", si->ssi_signo);
        (void) sd_notify(0, "STOPPING=1");
        s->stopping = true;
        return 0;
}

static int open_loop(struct standalone *s, struct err *e)
{
        static const int stop_signals[] = { SIGTERM, SIGINT };
        sigset_t set;
        int r = sd_event_new(&s->loop);

        (void) sigemptyset(&set);
        for (size_t i = 0; i < NELEM(stop_signals); i++)
                (void) sigaddset(&set, stop_signals[i]);
        (void) sigprocmask(SIG_BLOCK, &set, NULL);
        (void) signal(SIGPIPE, SIG_IGN);
        for (size_t i = 0; r >= 0 && i < NELEM(stop_signals); i++)
                r = sd_event_add_signal(s->loop, NULL, stop_signals[i], on_stop, s);
        return r < 0 ? err_errno(e, r, "event loop") : 0;
}

static int open_all(struct standalone *s, const struct standalone_args *a, struct err *e)
{
        struct api_child_spec api = { .on_ready = on_api_ready, .arg = s };
        AUTO(free) char *libexec = NULL;
        int r = tcp_listen_check("--listen", a->listen, e);

        if (r >= 0)
                r = instance_find_libexec(&libexec, e);
        if (r >= 0)
                r = private_mounts(e);
        /* the descriptors come after that: on one of the old namespace nothing can be mounted */
        if (r >= 0)
                r = instance_open(a->data_dir, a->config, libexec, &s->inst, e);
        if (r < 0)
                return r;
        log_init("hypervisor-vmm", (enum log_level) log_level_parse(s->inst->conf.log_level));
        r = open_loop(s, e);
        if (r >= 0)
                r = open_host(s, e);
        if (r >= 0)
                r = check_listeners(s, a->listen, e);
        if (r >= 0) /* from here on nothing that is opened reaches an operation by accident */
                r = op_runner_new(s->loop, order_run, &s->host, SPARE_OPS, &s->runner, e);
        if (r >= 0)
                r = retry_while_in_use(try_listen, s, a->listen, e);
        if (r >= 0)
                r = journal_open(s->inst, &s->journal, e);
        if (r >= 0)
                r = inventory_read(s->inst, s->host.apparmor != NULL, &s->inventory, e);
        if (r >= 0)
                r = retry_while_in_use(try_service, s, NULL, e);
        if (r >= 0)
                r = open_edge(s, e);
        if (r >= 0)
                r = open_service(s, e);
        if (r < 0)
                return r;
        api.loop = s->loop;
        api.inst = s->inst;
        api.listen_fd = s->listen_fd;
        if (s->edge) {
                s->cluster_domain = edge_child_domain(s->edge);
                if (!s->cluster_domain)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        api.cluster_domain = s->cluster_domain;
        return api_child_start(&api, &s->api, e);
}

int standalone_run(const struct standalone_args *a, struct err *e)
{
        AUTO(standalone_done) struct standalone s;
        int r;

        standalone_init(&s);
        r = open_all(&s, a, e);
        if (r < 0)
                return r;
        /* The loop before the work that it has started: an answer must not wait for the program that
         * it is about.  Children go back to normal; without the right to do this it is not done. */
        (void) setpriority(PRIO_PROCESS, 0, LOOP_PRIORITY);
        while (r >= 0 && !s.stopping)
                r = sd_event_run(s.loop, UINT64_MAX);
        return r < 0 ? err_errno(e, r, "event loop") : 0;
}
