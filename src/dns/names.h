/* names.h - which clusters there are, as the engine said: address, account, id.  vmm-dns. */
#pragma once
#include <jansson.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

#define NAMES_SERVERS 3U /* that queries are forwarded to */

/* What is under way for all clusters of an account, those that are gone included. */
struct account {
        char *id;
        unsigned users; /* names, queries and connections that point here */
        unsigned queries, connections;
        uint64_t paid_until_us; /* see dnsd_may_ask() */
};

struct name {
        uint32_t address; /* IPv4, host byte order */
        bool has_address6;
        struct in6_addr address6;
        struct account *account;
        char *cluster;
        unsigned queries, connections; /* of this cluster under way: nobody takes all of them */
};

struct names; /* and the servers beside them */

struct names *names_new(void);
struct names *names_free(struct names *n);
DEFINE_AUTO(struct names *, names_free)

/* A message of the engine (docs/node-protocol.md, "vmm-dns").  -EPROTO says what is wrong with it. */
int names_message(struct names *n, const json_t *msg, struct err *e);

/* NULL: nobody.  Borrowed until the next message. */
struct name *names_by_address(const struct names *n, uint32_t address);
const struct name *names_by_cluster(const struct names *n, const char *cluster);
/* For whoever keeps an account longer than its names; the last one to leave ends it. */
struct account *names_account_hold(struct account *a);
void names_account_leave(struct names *n, struct account *a);
uint32_t names_service(const struct names *n); /* where api.internal answers; 0: not known */
/* The @i-th server, NULL: there are no more. */
const struct sockaddr_storage *names_server(const struct names *n, size_t i);

/* What is answered to @from about @name without asking anybody. */
enum names_verdict {
        NAMES_NONE,
        NAMES_FORWARD, /* not a name of ours */
        NAMES_ABSENT,  /* there is no such name, or it is another account's */
        NAMES_CLUSTER, /* *ret_name */
        NAMES_SERVICE, /* api.internal */
        NAMES_EMPTY,   /* a name without records: "internal" itself */
        NAMES_VERDICT_COUNT
};
enum names_verdict names_judge(const struct names *n, const struct name *from, const char *name,
                               const struct name **ret_name);
