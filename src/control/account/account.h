/* account.h - who is asking, and what may they do.
 *
 * Keys are known by their SHA-256 only; the text of a key exists in the answer that makes it, in
 * the admin key file, and in the environment of its cluster.  The key of a cluster is derived from
 * a secret in the data directory, so that a plan can be sent again without storing it.
 * Loop thread; blocks only in accounts_open(). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/map.h"
#include "base/mem.h"
#include "control/store/store.h"

#define ACCOUNT_ID_LEN 12U

struct account {
        char *id, *name, *email;
        char *pub_key; /* SSH keys, newline separated; NULL: none */
        bool admin;
        uint64_t created_us;
};

enum key_right {
        KEY_NONE,    /* no key */
        KEY_CLUSTER, /* of one cluster: read, stop, start, terminate itself */
        KEY_READ,    /* of an account, reading only */
        KEY_WRITE,   /* of an account */
        KEY_ADMIN,   /* of an administrator's account */
        KEY_RIGHT_COUNT
};
extern const char *const key_right_names[KEY_RIGHT_COUNT];
/* What a good key is told that has less than is needed. */
extern const char *const key_needed[KEY_RIGHT_COUNT];

/* What a request may do.  Holds copies: it outlives a reload of the accounts. */
struct caller {
        enum key_right right;
        char account[ACCOUNT_ID_LEN + 1];
        char cluster[15]; /* KEY_CLUSTER only */
        char key[20];     /* the key's id */
};

struct accounts;

/* Load from @s; the first start makes the administrator's account.  @dir is ours and holds the
 * secret for cluster keys. */
int accounts_open(struct store *s, const char *dir, struct accounts **ret, struct err *e);
struct accounts *accounts_free(struct accounts *a);
DEFINE_AUTO(struct accounts *, accounts_free)
int accounts_reload(struct accounts *a, struct err *e); /* after a failure of the store */

/* Recognise @key, in constant time over the digests.  False: there is no such key. */
bool accounts_check(const struct accounts *a, const char *key, struct caller *ret);

const struct account *accounts_get(const struct accounts *a, const char *id); /* NULL: none */
const struct account *accounts_admin(const struct accounts *a);               /* NULL: none yet */
const struct map *accounts_all(const struct accounts *a); /* id -> struct account */

/* Its name, borrowed; NULL: it has none, or there is no such key. */
const char *accounts_key_name(const struct accounts *a, const char *key_id);

/* Whose it is, likewise. */
const char *accounts_key_account(const struct accounts *a, const char *key_id);

/* A key as its owner may see it: everything but the key. */
struct key_view {
        const char *id, *name, *prefix, *rights;
        uint64_t created_us;
};
/* Call @fn for each key of @account but those of clusters; a negative return ends the walk. */
int accounts_keys(const struct accounts *a, const char *account,
                  int (*fn)(void *arg, const struct key_view *k), void *arg);

/* What the edge has to know of @account's keys, but of those of clusters: [{"id", "sha256", "opens"}]; opens: private ports
 * of its clusters.  New reference; NULL: out of memory. */
json_t *accounts_edge_keys(const struct accounts *a, const char *account);

/* Each changes memory and adds the rows to @t; the caller submits @t. */
int accounts_add(struct accounts *a, struct store_txn *t, const char *name, bool admin,
                 uint64_t now_us, const struct account **ret, struct err *e);
/* *@ret_text is the new key, to be shown once and wiped; *@ret_id its id. */
int accounts_add_key(struct accounts *a, struct store_txn *t, const char *account,
                     enum key_right right, const char *name, uint64_t now_us, char **ret_text,
                     const char **ret_id, struct err *e);
/* @account NULL: anybody's key, for administrators. */
int accounts_del_key(struct accounts *a, struct store_txn *t, const char *account,
                     const char *key_id, struct err *e);
/* The whole list, checked: model/sshkey.h. */
int accounts_set_pub_key(struct accounts *a, struct store_txn *t, const char *account,
                         const char *pub_key, struct err *e);

/* The key of a cluster: recognised from accounts_add_cluster_key() until its removal. */
int accounts_add_cluster_key(struct accounts *a, struct store_txn *t, const char *account,
                             const char *cluster, uint64_t created_us, struct err *e);
void accounts_del_cluster_key(struct accounts *a, struct store_txn *t, const char *cluster);
/* What else is derived for a cluster, for one purpose: 32 bytes that only this host knows; wipe them. */
int accounts_cluster_seed(const struct accounts *a, const char *purpose, const char *cluster,
                          uint64_t created_us, uint8_t ret[static 32]);
/* Its text (wipe and free), or NULL when out of memory. */
char *accounts_cluster_key(const struct accounts *a, const char *cluster, uint64_t created_us);
