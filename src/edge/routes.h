/* routes.h - which names lead to which cluster: what HAProxy's map should hold.
 *
 * A level: whoever calls routes_set() says how it should be, and gets the commands for HAProxy's
 * runtime socket that bring a map which was as before to that.  Pure. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/str.h"
#include "edge/pages.h"
#include "model/limits.h"

struct routes;

/* @map: its name for HAProxy, the file's path; @domain: of the tenants.  Both copied; NULL: out of memory. */
struct routes *routes_new(const char *map, const char *domain);
struct routes *routes_free(struct routes *r);
DEFINE_AUTO(struct routes *, routes_free)

/* What the names of a cluster lead to. */
struct routes_to {
        const char *address;      /* IPv4, where its ports are; NULL: nowhere, but to */
        const char *page;         /* this word of edge_page_word() */
        const uint32_t *ports;    /* different ones */
        size_t n;                 /* at most LIMIT_HTTP_PORTS; 0: it has no names */
        const bool *is_private;   /* of each; NULL: none is */
        const char *account;      /* [a-z0-9], whose keys open the private ones */
        const char *key;          /* base64, which their links are signed with */
        char *const *allowed_ips; /* model/allow.h: they answer these alone; NULL or none: all */
};
/* From now on; a private port without account or key has no name.  Appends the commands, each with a newline; returns how many, -ENOMEM with nothing changed.
 * *@ret_left: names of it have led to an address where none leads now. */
int routes_set(struct routes *r, const char *cluster, const struct routes_to *to, bool *ret_left,
               struct strbuf *commands);
/* Names in all. */
size_t routes_count(const struct routes *r);
/* The map as a file: "NAME ADDRESS:PORT\n", "NAME ADDRESS:PORT:ACCOUNT:KEY\n" or "NAME PAGE\n" for each.  A cluster
 * that answers some addresses alone has ":*" behind the first two, and "allow/ID/ENTRY =allow\n" for each entry (model/allow.h). */
void routes_file(const struct routes *r, struct strbuf *b);
/* Commands that make the map of version @version, which "prepare map" has returned, and show it instead of
 * whatever was there; returns how many. */
size_t routes_fill(const struct routes *r, unsigned version, struct strbuf *commands);
