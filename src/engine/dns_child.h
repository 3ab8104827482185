/* dns_child.h - vmm-dns, the clusters' resolver: started, told who is there, started again.
 *
 * Engine process, loop thread.  Its sockets on the service address are made by the engine and live on
 * when it ends, so that queries wait rather than fail while it is started again. */
#pragma once
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/host.h"

struct dns_child;

/* Call @fn for every cluster that has a slot. */
typedef void dns_name_fn(void *arg, uint32_t slot, const char *account, const char *cluster);
struct dns_child_spec {
        sd_event *loop;
        const struct host *host;
        int udp, tcp; /* net_resolver_listen(); taken over, in every case */
        void (*each)(void *arg, dns_name_fn *fn, void *fn_arg);
        void *arg;
};

int dns_child_start(const struct dns_child_spec *spec, struct dns_child **ret, struct err *e);
/* TERM is not needed: it keeps nothing.  Blocks for its death. */
struct dns_child *dns_child_stop(struct dns_child *c);
DEFINE_AUTO(struct dns_child *, dns_child_stop)

/* The slot has this cluster from now on, before its first process runs; @account NULL: nobody. */
void dns_child_name(void *dns_child, uint32_t slot, const char *account, const char *cluster);
