/* account.c - see account.h.  Runs in tensorone-api on the loop thread.
 * What always holds: keys are found by the first half of their digest, compared in constant time
 * by all of it, and never logged. */
#include "control/account/account.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/proc.h"
#include "base/str.h"
#include "model/sshkey.h"

#define SECRET_BYTES 32U
#define DIGEST_BYTES 32U
#define DIGEST_HEX   (2 * DIGEST_BYTES)
#define INDEX_CHARS  32U /* of the hex digest, for the look-up */
#define PREFIX_CHARS 9U  /* of a key, shown so that people can tell their keys apart */
#define SECRET_FILE  "cluster-key.secret"

const char *const key_right_names[KEY_RIGHT_COUNT] = { "none", "cluster", "read", "write",
                                                       "admin" };
#define ADMIN_NEEDED                                                                               \
        "forbidden: an administrator's key is needed; the host's lies in admin.key of its data directory"
const char *const key_needed[KEY_RIGHT_COUNT] = {
        [KEY_NONE] = "forbidden",
        [KEY_CLUSTER] = "forbidden: a cluster's key is needed",
        [KEY_READ] = "forbidden: an account's key is needed, this one is a cluster's own",
        [KEY_WRITE] = "forbidden: an account's key that may change things is needed",
        [KEY_ADMIN] = ADMIN_NEEDED,
};

struct api_key {
        char *id, *account, *name, *prefix, *hash, *cluster;
        enum key_right right;
        uint64_t created_us;
};

struct accounts {
        struct store *store; /* borrowed */
        struct map *by_id;   /* struct account, owned */
        struct map *keys;    /* key id -> struct api_key, owned */
        struct map *by_hash; /* half a digest -> struct api_key */
        unsigned char secret[SECRET_BYTES];
};

#define A(f) #f, .off = offsetof(struct account, f)
static const struct jfield account_fields[] = {
        { A(id), .kind = J_STR, .required = true },
        { A(name), .kind = J_STR, .required = true },
        { A(email), .kind = J_STR },
        { A(pub_key), .kind = J_STR, .max = 65536 },
        { A(admin), .kind = J_BOOL },
        { A(created_us), .kind = J_U64 },
};
#undef A
static_assert(sizeof(enum key_right) == sizeof(int), "J_ENUM wants an int");
#define K(f) #f, .off = offsetof(struct api_key, f)
static const struct jfield key_fields[] = {
        { K(id), .kind = J_STR, .required = true },
        { K(account), .kind = J_STR, .required = true },
        { K(name), .kind = J_STR },
        { K(prefix), .kind = J_STR },
        { K(hash), .kind = J_STR, .required = true },
        { K(cluster), .kind = J_STR },
        { "rights", .off = offsetof(struct api_key, right), .kind = J_ENUM,
          .names = key_right_names, .max = KEY_RIGHT_COUNT, .required = true },
        { K(created_us), .kind = J_U64 },
};
#undef K

static struct account *account_free(struct account *p)
{
        if (p)
                jsonx_done(account_fields, NELEM(account_fields), p);
        free(p);
        return NULL;
}

static struct api_key *key_free(struct api_key *k)
{
        if (k)
                jsonx_done(key_fields, NELEM(key_fields), k);
        free(k);
        return NULL;
}

DEFINE_AUTO(struct account *, account_free)
DEFINE_AUTO(struct api_key *, key_free)

static json_t *account_row(const struct account *p)
{
        return jsonx_encode(account_fields, NELEM(account_fields), p);
}

static json_t *key_row(const struct api_key *k)
{
        return jsonx_encode(key_fields, NELEM(key_fields), k);
}

static int digest_hex(const char *key, char ret[DIGEST_HEX + 1])
{
        unsigned char md[DIGEST_BYTES];

        if (EVP_Digest(key, strlen(key), md, NULL, EVP_sha256(), NULL) != 1)
                return -ENOMEM;
        hex_encode(md, sizeof md, ret);
        return 0;
}

static void index_of(const char *hash, char ret[INDEX_CHARS + 1])
{
        memcpy(ret, hash, INDEX_CHARS);
        ret[INDEX_CHARS] = '\0';
}

/* ---- loading ---- */

static int keep_account(void *arg, const json_t *row, struct err *e)
{
        struct accounts *a = arg;
        AUTO(account_free) struct account *p = calloc(1, sizeof *p);
        int r = p ? jsonx_decode(row, account_fields, NELEM(account_fields), p, e) : -ENOMEM;

        if (r >= 0)
                r = map_set(a->by_id, p->id, p);
        if (r < 0)
                return err_wrap(e, r, "account");
        p = NULL;
        return 0;
}

/* Index @k and own it; @k is taken in every case. */
static int own_key(struct accounts *a, struct api_key *k)
{
        char half[INDEX_CHARS + 1];
        int r = strlen(k->hash) == DIGEST_HEX ? map_set(a->keys, k->id, k) : -EINVAL;

        if (r < 0) {
                (void) key_free(k);
                return r;
        }
        index_of(k->hash, half);
        return map_set(a->by_hash, half, k);
}

static int keep_key(void *arg, const json_t *row, struct err *e)
{
        AUTO(key_free) struct api_key *k = calloc(1, sizeof *k);
        int r = k ? jsonx_decode(row, key_fields, NELEM(key_fields), k, e) : -ENOMEM;

        if (r >= 0)
                r = own_key(arg, TAKE(k));
        return r < 0 ? err_wrap(e, r, "api_key") : 0;
}

static void clear(struct accounts *a)
{
        for (struct map_entry *i = a->by_id ? map_first(a->by_id) : NULL; i; i = map_next(i))
                (void) account_free(map_value(i));
        for (struct map_entry *i = a->keys ? map_first(a->keys) : NULL; i; i = map_next(i))
                (void) key_free(map_value(i));
        a->by_id = map_free(a->by_id);
        a->keys = map_free(a->keys);
        a->by_hash = map_free(a->by_hash);
}

int accounts_reload(struct accounts *a, struct err *e)
{
        AUTO(map_free) struct map *by_id = map_new(), *keys = map_new(), *by_hash = map_new();
        int r;

        if (!by_id || !keys || !by_hash)
                return err_set(e, -ENOMEM, "out of memory"); /* what is there stays */
        clear(a);
        a->by_id = TAKE(by_id);
        a->keys = TAKE(keys);
        a->by_hash = TAKE(by_hash);
        r = store_load(a->store, ST_ACCOUNT, keep_account, a, e);
        return r < 0 ? r : store_load(a->store, ST_API_KEY, keep_key, a, e);
}

/* Read the secret, or make it when the data directory is new. */
static int load_secret(struct accounts *a, const char *dir, struct err *e)
{
        AUTO(fd) int dirfd = open(dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
        AUTO(free) char *text = NULL;
        size_t len = 0;
        int r;

        if (dirfd < 0)
                return err_errno(e, -errno, "open %s", dir);
        r = fd_read_file(dirfd, SECRET_FILE, SECRET_BYTES, &text, &len);
        if (r >= 0 && len == SECRET_BYTES) {
                memcpy(a->secret, text, SECRET_BYTES);
                explicit_bzero(text, len);
                return 0;
        }
        if (r >= 0)
                return err_set(
                        e, -EINVAL,
                        "%s/%s: %zu bytes, %u expected; remove it to make a new one (running clusters then lose their keys)",
                        dir, SECRET_FILE, len, SECRET_BYTES);
        if (r != -ENOENT)
                return err_errno(e, r, "read %s/%s", dir, SECRET_FILE);
        r = rand_bytes(a->secret, SECRET_BYTES);
        if (r >= 0)
                r = fd_replace_file(dirfd, SECRET_FILE, a->secret, SECRET_BYTES, 0600, true);
        return r < 0 ? err_errno(e, r, "write %s/%s", dir, SECRET_FILE) : 0;
}

int accounts_open(struct store *s, const char *dir, struct accounts **ret, struct err *e)
{
        AUTO(accounts_free) struct accounts *a = calloc(1, sizeof *a);
        int r;

        if (!a)
                return err_set(e, -ENOMEM, "out of memory");
        a->store = s;
        r = load_secret(a, dir, e);
        if (r >= 0)
                r = accounts_reload(a, e);
        if (r < 0)
                return r;
        *ret = TAKE(a);
        return 0;
}

struct accounts *accounts_free(struct accounts *a)
{
        if (!a)
                return NULL;
        clear(a);
        explicit_bzero(a->secret, sizeof a->secret);
        free(a);
        return NULL;
}

/* ---- asking ---- */

bool accounts_check(const struct accounts *a, const char *key, struct caller *ret)
{
        char hex[DIGEST_HEX + 1], half[INDEX_CHARS + 1];
        const struct api_key *k;
        const struct account *p;

        if (str_empty(key) || digest_hex(key, hex) < 0)
                return false;
        index_of(hex, half);
        k = map_get(a->by_hash, half);
        if (!k || CRYPTO_memcmp(k->hash, hex, DIGEST_HEX) != 0)
                return false;
        p = accounts_get(a, k->account);
        if (!p)
                return false;
        *ret = (struct caller){ .right = k->right };
        if (k->right == KEY_ADMIN && !p->admin)
                ret->right = KEY_WRITE;
        (void) snprintf(ret->account, sizeof ret->account, "%s", k->account);
        (void) snprintf(ret->cluster, sizeof ret->cluster, "%s", k->cluster ? k->cluster : "");
        (void) snprintf(ret->key, sizeof ret->key, "%s", k->id);
        return true;
}

const char *accounts_key_name(const struct accounts *a, const char *key_id)
{
        const struct api_key *k = map_get(a->keys, key_id);

        return k ? k->name : NULL;
}

const char *accounts_key_account(const struct accounts *a, const char *key_id)
{
        const struct api_key *k = map_get(a->keys, key_id);

        return k ? k->account : NULL;
}

const struct account *accounts_get(const struct accounts *a, const char *id)
{
        return map_get(a->by_id, id);
}

const struct account *accounts_admin(const struct accounts *a)
{
        for (struct map_entry *i = map_first(a->by_id); i; i = map_next(i)) {
                const struct account *p = map_value(i);

                if (p->admin)
                        return p;
        }
        return NULL;
}

const struct map *accounts_all(const struct accounts *a)
{
        return a->by_id;
}

int accounts_keys(const struct accounts *a, const char *account,
                  int (*fn)(void *arg, const struct key_view *k), void *arg)
{
        for (struct map_entry *i = map_first(a->keys); i; i = map_next(i)) {
                const struct api_key *k = map_value(i);
                struct key_view v = { k->id, k->name, k->prefix, key_right_names[k->right],
                                      k->created_us };
                int r = k->right != KEY_CLUSTER && str_eq(k->account, account) ? fn(arg, &v) : 0;

                if (r < 0)
                        return r;
        }
        return 0;
}

json_t *accounts_edge_keys(const struct accounts *a, const char *account)
{
        AUTO(json_put) json_t *list = json_array();

        for (struct map_entry *i = map_first(a->keys); list && i; i = map_next(i)) {
                const struct api_key *k = map_value(i);

                if (k->right == KEY_CLUSTER || !str_eq(k->account, account))
                        continue;
                if (json_array_append_new(list,
                                          json_pack("{s:s, s:s, s:b}", "id", k->id, "sha256",
                                                    k->hash, "opens", k->right >= KEY_WRITE)) < 0)
                        return NULL;
        }
        return TAKE(list);
}

/* ---- changing ---- */

int accounts_add(struct accounts *a, struct store_txn *t, const char *name, bool admin,
                 uint64_t now_us, const struct account **ret, struct err *e)
{
        AUTO(account_free) struct account *p = calloc(1, sizeof *p);
        char id[ACCOUNT_ID_LEN + 1];

        if (str_empty(name) || strlen(name) > 64)
                return err_set(e, -EINVAL, "name: an account name has 1 to 64 bytes");
        for (struct map_entry *i = map_first(a->by_id); i; i = map_next(i))
                if (str_eq(((const struct account *) map_value(i))->name, name))
                        return err_set(e, -EEXIST, "name: an account '%s' exists already", name);
        if (!p || rand_id(id, ACCOUNT_ID_LEN) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        p->id = strdup(id);
        p->name = strdup(name);
        p->admin = admin;
        p->created_us = now_us;
        if (!p->id || !p->name || map_set(a->by_id, id, p) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        store_insert(t, ST_ACCOUNT, account_row(p));
        *ret = TAKE(p);
        return 0;
}

/* Make the record for key @text, index it, and add its row.  @k holds everything but the hash. */
static int add_key(struct accounts *a, struct store_txn *t, struct api_key *k, const char *text)
{
        AUTO(key_free) struct api_key *own = calloc(1, sizeof *own);
        char hex[DIGEST_HEX + 1], prefix[PREFIX_CHARS + 1];
        struct api_key *borrowed;
        int r;

        if (!own || digest_hex(text, hex) < 0)
                return -ENOMEM;
        (void) snprintf(prefix, sizeof prefix, "%s", text);
        *own = (struct api_key){
                .id = str_dup(k->id),
                .account = str_dup(k->account),
                .name = str_dup(k->name),
                .prefix = strdup(prefix),
                .hash = strdup(hex),
                .cluster = str_dup(k->cluster),
                .right = k->right,
                .created_us = k->created_us,
        };
        if (!own->id || !own->account || !own->prefix || !own->hash ||
            (k->cluster && !own->cluster) || (k->name && !own->name))
                return -ENOMEM;
        borrowed = own;
        r = own_key(a, TAKE(own));
        if (r >= 0)
                store_insert(t, ST_API_KEY, key_row(borrowed));
        return r;
}

int accounts_add_key(struct accounts *a, struct store_txn *t, const char *account,
                     enum key_right right, const char *name, uint64_t now_us, char **ret_text,
                     const char **ret_id, struct err *e)
{
        char id[ACCOUNT_ID_LEN + 1], body[41];
        AUTO(str_wipe_free) char *text = NULL;
        struct api_key k = { .id = id,
                             .account = (char *) (uintptr_t) account,
                             .name = (char *) (uintptr_t) name,
                             .right = right,
                             .created_us = now_us };
        int r;

        if (!accounts_get(a, account))
                return err_set(e, -ENOENT, "account not found");
        if (rand_id(id, ACCOUNT_ID_LEN) < 0 || rand_id(body, sizeof body - 1) < 0)
                return err_set(e, -EIO, "no random numbers");
        text = str_fmt("hvmm_%s", body);
        explicit_bzero(body, sizeof body);
        r = text ? add_key(a, t, &k, text) : -ENOMEM;
        if (r < 0)
                return err_errno(e, r, "api key");
        *ret_text = TAKE(text);
        *ret_id = ((struct api_key *) map_get(a->keys, id))->id;
        return 0;
}

static void drop_key(struct accounts *a, struct store_txn *t, const char *id)
{
        struct api_key *k = map_del(a->keys, id);
        char half[INDEX_CHARS + 1];

        if (!k)
                return;
        index_of(k->hash, half);
        (void) map_del(a->by_hash, half);
        store_del(t, ST_API_KEY, json_pack("{s:s}", "id", k->id));
        (void) key_free(k);
}

int accounts_del_key(struct accounts *a, struct store_txn *t, const char *account,
                     const char *key_id, struct err *e)
{
        const struct api_key *k = map_get(a->keys, key_id);

        if (!k || (account && !str_eq(k->account, account)) || k->right == KEY_CLUSTER)
                return err_set(e, -ENOENT, "api key not found");
        drop_key(a, t, key_id);
        return 0;
}

int accounts_set_pub_key(struct accounts *a, struct store_txn *t, const char *account,
                         const char *pub_key, struct err *e)
{
        struct account *p = map_get(a->by_id, account);
        char *copy;
        int r;

        if (!p)
                return err_set(e, -ENOENT, "account not found");
        r = sshkey_check("pubKey", pub_key, e);
        if (r < 0)
                return r;
        copy = strdup(r > 0 ? pub_key : ""); /* comments alone are no keys */
        if (!copy)
                return err_set(e, -ENOMEM, "out of memory");
        free(p->pub_key);
        p->pub_key = copy;
        store_put(t, ST_ACCOUNT, account_row(p));
        return 0;
}

/* ---- keys of clusters ---- */

int accounts_cluster_seed(const struct accounts *a, const char *purpose, const char *cluster,
                          uint64_t created_us, uint8_t ret[static 32])
{
        AUTO(free)
        char *what = str_fmt("%s %s %llu", purpose, cluster, (unsigned long long) created_us);
        unsigned char mac[DIGEST_BYTES];
        unsigned int len = sizeof mac;

        if (!what || !HMAC(EVP_sha256(), a->secret, SECRET_BYTES, (const unsigned char *) what,
                           strlen(what), mac, &len))
                return -ENOMEM;
        memcpy(ret, mac, sizeof mac);
        explicit_bzero(mac, sizeof mac);
        return 0;
}

char *accounts_cluster_key(const struct accounts *a, const char *cluster, uint64_t created_us)
{
        unsigned char mac[DIGEST_BYTES];
        char hex[DIGEST_HEX + 1];
        char *text;

        if (accounts_cluster_seed(a, "cluster-key", cluster, created_us, mac) < 0)
                return NULL;
        hex_encode(mac, 20, hex);
        text = str_fmt("hvmc_%s", hex);
        explicit_bzero(hex, sizeof hex);
        explicit_bzero(mac, sizeof mac);
        return text;
}

static void cluster_key_id(const char *cluster, char *ret, size_t len)
{
        (void) snprintf(ret, len, "c-%s", cluster);
}

int accounts_add_cluster_key(struct accounts *a, struct store_txn *t, const char *account,
                             const char *cluster, uint64_t created_us, struct err *e)
{
        AUTO(str_wipe_free) char *text = accounts_cluster_key(a, cluster, created_us);
        char id[32];
        struct api_key k = { .id = id,
                             .account = (char *) (uintptr_t) account,
                             .cluster = (char *) (uintptr_t) cluster,
                             .right = KEY_CLUSTER,
                             .created_us = created_us };
        int r;

        cluster_key_id(cluster, id, sizeof id);
        r = text ? add_key(a, t, &k, text) : -ENOMEM;
        return r < 0 ? err_errno(e, r, "cluster key") : 0;
}

void accounts_del_cluster_key(struct accounts *a, struct store_txn *t, const char *cluster)
{
        char id[32];

        cluster_key_id(cluster, id, sizeof id);
        drop_key(a, t, id);
}
