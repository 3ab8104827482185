/* pages.h - what the edge itself says under a cluster's name, where nothing of the cluster can answer.
 *
 * HAProxy makes each answer by itself, from its configuration and the map of names: an HTML page for whoever
 * accepts one, JSON for all others.  No word of a request stands in them, and of a cluster nothing but what this
 * enum tells (docs/edge.md, "Pages").  Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum edge_page {
        EDGE_PAGE_NONE,
        EDGE_PAGE_UNKNOWN,  /* the only one that is not in the map */
        EDGE_PAGE_STOPPED,  /* there, and nobody has said that it is to run */
        EDGE_PAGE_STOPPING, /* on its way there */
        EDGE_PAGE_STARTING, /* from the order to start on; also while it is stopped for a restart */
        EDGE_PAGE_PULLING,  /* the same, and its image is being fetched: with a percentage */
        EDGE_PAGE_RESTARTING,    /* its first process has ended by itself and is started again */
        EDGE_PAGE_NOT_LISTENING, /* it runs; the next two are what HAProxy says when it finds out */
        EDGE_PAGE_NO_HTTP,
        EDGE_PAGE_ADDRESS_BUSY, /* who asks asks too much, as everybody there together: limits of [edge] */
        EDGE_PAGE_CLUSTER_BUSY,
        EDGE_PAGE_PRIVATE,     /* without a key, a link or its cookie */
        EDGE_PAGE_NOT_ALLOWED, /* from an address that is in no network of its list */
        EDGE_PAGE_OTHER_PAGE,  /* with the cookie, asked for by a page of another name */
        EDGE_PAGE_COUNT
};

/* Where a cluster is for whoever asks for it by one of its names. */
struct edge_to {
        const char *ports;        /* "8888/http,22/tcp": it has a name for each web port */
        const char *address;      /* IPv4; NULL: a page answers, */
        enum edge_page page;      /* this one; EDGE_PAGE_NONE: it has no names */
        uint32_t percent;         /* of the page, if that tells one */
        const char *account;      /* whose keys open those ports that are private, */
        const char *key;          /* and what their links are signed with: base64; NULL: none is */
        char *const *allowed_ips; /* model/allow.h; NULL or none: all */
};

/* What stands in the map for a name that leads to that page; no address begins like it.  "" for the first two. */
#define EDGE_PAGE_WORD_MAX 24U
void edge_page_word(char ret[static EDGE_PAGE_WORD_MAX], enum edge_page p, uint32_t percent);

/* Lines of HAProxy's configuration.  In a backend: answer every request, by the word in txn.route. */
void edge_pages_put(struct strbuf *b);
/* Where an ACL wants_page is: refuse with that page whoever the ACL @acl is true for. */
void edge_pages_put_refusal(struct strbuf *b, enum edge_page p, const char *acl);
/* In a backend that leads to clusters: what to say when none answers. */
void edge_pages_put_errors(struct strbuf *b, bool html);
