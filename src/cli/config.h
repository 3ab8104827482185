/* config.h - where the API is, which key opens it and who vouches for it.
 *
 * The environment wins over the file: TENSORONE_API_URL and _KEY, then RUNPOD_API_URL and _KEY,
 * TENSORONE_CA; then ~/.tensorone/config.toml (0600).  Reads and writes files, never the network. */
#pragma once
#include "base/err.h"
#include "base/mem.h"

struct config {
        char *url; /* base without /graphql and without a trailing slash; NULL: not set */
        char *key; /* NULL: not set */
        char *ca;  /* a PEM file with the authorities that alone are believed; NULL: the system's */
        const char *url_from, *key_from,
                *ca_from; /* "TENSORONE_API_URL", "the configuration file"; or NULL */
};

/* For --ca, which is this for one command and what that starts. */
#define CONFIG_CA_VARIABLE "TENSORONE_CA"

/* Empty values in the environment count as not set.  The authority in the file counts for the address in
 * the file alone.  A value that cannot be used (an address
 * that is not http or https, a key with a line break) is an error that says where it came from
 * and never quotes a key. */
int config_load(struct config *ret, struct err *e);
void config_done(struct config *c);

static inline void config_done_cleanup(struct config *c)
{
        config_done(c);
}

/* What is not NULL is stored; the rest of the file, comments included, stays as it is. */
struct config_change {
        const char *url, *key;
        const char *ca_pem; /* the authorities themselves; "": the system's */
};

/* *@ret_path is the file's name, the caller's to free. */
int config_save(const struct config_change *change, char **ret_path, struct err *e);

/* "HTTP://Host:1/graphql/" -> "http://Host:1"; -EINVAL unless http or https with a host and
 * without user, query or fragment.  Pure. */
int config_base_url(const char *url, char **ret, struct err *e);

/* A key is one printable word: it travels in a header line.  Pure. */
int config_check_key(const char *key, struct err *e);
