/* nft.c - see nft.h and nft_priv.h: elements of the table's sets, by netlink.  Operation processes on
 * the boot path, and the engine.  Always holds: a change is one transaction, all of it or nothing. */
#include "engine/net/nft.h"

#include <arpa/inet.h>
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "engine/net/nft_priv.h"

#define LIST_TRIES 20

static void add_message(struct nl_batch *b, unsigned type, uint8_t family, unsigned flags,
                        uint16_t resource, const char *what)
{
        struct nfgenmsg *nf = nl_add(b, type, flags, sizeof *nf, what, 0);

        nf->nfgen_family = family;
        nf->version = NFNETLINK_V0;
        nf->res_id = htons(resource);
}

void nft_message(struct nl_batch *b, unsigned type, unsigned flags, const char *what)
{
        add_message(b, NFNL_SUBSYS_NFTABLES << 8 | type, NFPROTO_INET, flags, 0, what);
}

void nft_begin(struct nl_batch *b)
{
        nl_batch_init(b);
        b->atomic = true;
        add_message(b, NFNL_MSG_BATCH_BEGIN, AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES, "nftables");
}

int nft_commit(struct nl_sock *s, struct nl_batch *b, struct err *e)
{
        add_message(b, NFNL_MSG_BATCH_END, AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES, "nftables");
        return nl_commit(s, b, e);
}

static void put_data(struct nl_batch *b, uint16_t type, const void *data, size_t len)
{
        struct nlattr *nest = mnl_attr_nest_start(b->cur, type);

        mnl_attr_put(b->cur, NFTA_DATA_VALUE, len, data);
        mnl_attr_nest_end(b->cur, nest);
}

static void put_jump(struct nl_batch *b, const char *chain)
{
        struct nlattr *data = mnl_attr_nest_start(b->cur, NFTA_SET_ELEM_DATA),
                      *nest = mnl_attr_nest_start(b->cur, NFTA_DATA_VERDICT);

        mnl_attr_put_u32(b->cur, NFTA_VERDICT_CODE, htonl((uint32_t) NFT_JUMP));
        mnl_attr_put_strz(b->cur, NFTA_VERDICT_CHAIN, chain);
        mnl_attr_nest_end(b->cur, nest);
        mnl_attr_nest_end(b->cur, data);
}

static void put_item(struct nl_batch *b, const struct nft_item *it)
{
        struct nlattr *one = mnl_attr_nest_start(b->cur, NFTA_LIST_ELEM);

        put_data(b, NFTA_SET_ELEM_KEY, it->key, it->len);
        if (it->mark)
                put_data(b, NFTA_SET_ELEM_DATA, it->mark, sizeof *it->mark);
        if (it->jump)
                put_jump(b, it->jump);
        if (it->data)
                put_data(b, NFTA_SET_ELEM_DATA, it->data, it->data_len);
        mnl_attr_nest_end(b->cur, one);
}

/* Of one set. */
static void put_elements(struct nl_batch *b, const char *table, const struct nft_item *it, size_t n)
{
        struct nlattr *list;

        mnl_attr_put_strz(b->cur, NFTA_SET_ELEM_LIST_TABLE, table);
        mnl_attr_put_strz(b->cur, NFTA_SET_ELEM_LIST_SET, it->set);
        list = mnl_attr_nest_start(b->cur, NFTA_SET_ELEM_LIST_ELEMENTS);
        for (size_t i = 0; i < n; i++)
                put_item(b, &it[i]);
        mnl_attr_nest_end(b->cur, list);
}

void nft_element_some(struct nl_batch *b, unsigned type, const char *table,
                      const struct nft_item *it, size_t n)
{
        nft_message(b, type, type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0, "firewall set element");
        put_elements(b, table, it, n);
}

void nft_element(struct nl_batch *b, unsigned type, const char *table, const struct nft_item *it)
{
        nft_element_some(b, type, table, it, 1);
}

void nft_element_of(struct nl_batch *b, unsigned type, const char *table, const char *set,
                    const void *key, size_t len)
{
        nft_element(b, type, table, &(struct nft_item){ .set = set, .key = key, .len = len });
}

/* ---- asking ---- */

struct walk {
        nft_each_fn *fn;
        void *arg;
        const char *set;
};

/* The value of a nested attribute of @type. */
static const struct nlattr *value_of(const struct nlattr *element, uint16_t type)
{
        return nl_attr_find(nl_attrs_in(nl_attr_find(nl_attrs_in(element), type)), NFTA_DATA_VALUE);
}

/* The one expression that elements of a set with counters have. */
static uint64_t counted(const struct nlattr *element)
{
        const struct nlattr *expr = nl_attr_find(nl_attrs_in(element), NFTA_SET_ELEM_EXPR), *name,
                            *n;

        name = nl_attr_find(nl_attrs_in(expr), NFTA_EXPR_NAME);
        if (!name || !str_eq(mnl_attr_get_str(name), "counter"))
                return 0;
        n = nl_attr_find(nl_attrs_in(nl_attr_find(nl_attrs_in(expr), NFTA_EXPR_DATA)),
                         NFTA_COUNTER_BYTES);
        return n ? be64toh(mnl_attr_get_u64(n)) : 0;
}

static int one_element(const struct walk *w, const struct nlattr *element)
{
        const struct nlattr *key = value_of(element, NFTA_SET_ELEM_KEY),
                            *data = value_of(element, NFTA_SET_ELEM_DATA);
        struct nft_item it = { .set = w->set, .bytes = counted(element) };
        uint32_t mark;

        if (!key || !w->fn)
                return 0;
        it.key = mnl_attr_get_payload(key);
        it.len = mnl_attr_get_payload_len(key);
        if (data) {
                it.data = mnl_attr_get_payload(data);
                it.data_len = mnl_attr_get_payload_len(data);
        }
        if (data && it.data_len == sizeof mark) {
                mark = mnl_attr_get_u32(data);
                it.mark = &mark;
        }
        return w->fn(w->arg, &it);
}

static int on_elements(const struct nlmsghdr *h, void *arg)
{
        struct nl_attrs top = nl_attrs_of(h, sizeof(struct nfgenmsg)), list;
        const struct nlattr *a, *element;

        while ((a = nl_attr_next(&top))) {
                if (mnl_attr_get_type(a) != NFTA_SET_ELEM_LIST_ELEMENTS)
                        continue;
                list = nl_attrs_in(a);
                while ((element = nl_attr_next(&list)))
                        if (one_element(arg, element) < 0) {
                                errno = ENOMEM;
                                return MNL_CB_ERROR;
                        }
        }
        return MNL_CB_OK;
}

/* One element with what the kernel knows of it; 0: no such. */
static int ask(struct nl_sock *s, const char *table, const struct nft_item *it, struct walk *w,
               struct err *e)
{
        struct nl_batch b;
        int r;

        nl_batch_init(&b);
        nft_message(&b, NFT_MSG_GETSETELEM, 0, "look up firewall set element");
        put_elements(&b, table, it, 1);
        r = nl_query(s, &b, on_elements, w, e);
        return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

int nft_has(struct nl_sock *s, const char *table, const char *set, const void *key, size_t len,
            struct err *e)
{
        struct walk w = { .fn = NULL };

        return ask(s, table, &(struct nft_item){ .set = set, .key = key, .len = len }, &w, e);
}

static int take_mark(void *arg, const struct nft_item *it)
{
        uint32_t *mark = arg;

        *mark = it->mark ? *it->mark : 0;
        return 0;
}

int nft_look_up(struct nl_sock *s, const char *table, const char *map, const void *key, size_t len,
                uint32_t *ret_mark, struct err *e)
{
        uint32_t mark = 0;
        struct walk w = { .fn = take_mark, .arg = &mark };
        int r = ask(s, table, &(struct nft_item){ .set = map, .key = key, .len = len }, &w, e);

        if (r > 0)
                *ret_mark = mark;
        return r;
}

int nft_get(struct nl_sock *s, const char *table, const char *map, const void *key, size_t len,
            nft_each_fn *fn, void *arg, struct err *e)
{
        struct walk w = { .fn = fn, .arg = arg, .set = map };

        return ask(s, table, &(struct nft_item){ .set = map, .key = key, .len = len }, &w, e);
}

int nft_each(struct nl_sock *s, const char *table, const char *set, nft_each_fn *fn,
             nft_again_fn *again, void *arg, struct err *e)
{
        struct walk w = { .fn = fn, .arg = arg, .set = set };
        int r = -EINTR;

        for (int i = 0; r == -EINTR && i < LIST_TRIES; i++) { /* -EINTR: changed meanwhile */
                struct nl_batch b;

                again(arg);
                nl_batch_init(&b);
                nft_message(&b, NFT_MSG_GETSETELEM, NLM_F_DUMP, "list firewall set");
                mnl_attr_put_strz(b.cur, NFTA_SET_ELEM_LIST_TABLE, table);
                mnl_attr_put_strz(b.cur, NFTA_SET_ELEM_LIST_SET, set);
                r = nl_query(s, &b, on_elements, &w, e);
        }
        return r == -ENOENT ? 0 : r;
}

/* ---- the table ---- */

/* Is there a table, a chain of that name?  1, 0. */
static int exists(struct nl_sock *s, unsigned type, uint16_t attr, const char *table,
                  const char *chain, struct err *e)
{
        struct nl_batch b;
        int r;

        nl_batch_init(&b);
        nft_message(&b, type, 0, "look for firewall table");
        mnl_attr_put_strz(b.cur, attr, table);
        if (chain)
                mnl_attr_put_strz(b.cur, NFTA_CHAIN_NAME, chain);
        r = nl_query(s, &b, NULL, NULL, e);
        return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

int nft_is_foreign(struct nl_sock *s, const char *table, struct err *e)
{
        char layout[NFT_CHAIN_BYTES];
        int r = exists(s, NFT_MSG_GETTABLE, NFTA_TABLE_NAME, table, NULL, e);

        nft_layout_chain(layout);
        if (r > 0)
                r = exists(s, NFT_MSG_GETCHAIN, NFTA_CHAIN_TABLE, table, layout, e);
        else if (r == 0)
                return 0;
        return r < 0 ? r : !r;
}

int nft_table_del(struct nl_sock *s, const char *table, struct err *e)
{
        struct nl_batch b;
        int r;

        nft_begin(&b);
        nft_message(&b, NFT_MSG_DELTABLE, 0, "delete firewall table");
        mnl_attr_put_strz(b.cur, NFTA_TABLE_NAME, table);
        r = nft_commit(s, &b, e);
        return r == -ENOENT ? 0 : r;
}

static int on_table(const struct nlmsghdr *h, void *arg)
{
        const struct nlattr *a =
                nl_attr_find(nl_attrs_of(h, sizeof(struct nfgenmsg)), NFTA_TABLE_NAME);
        char ***names = arg;

        if (!a || mnl_attr_validate(a, MNL_TYPE_NUL_STRING) < 0 ||
            strncmp(mnl_attr_get_str(a), NFT_TABLE_PREFIX, strlen(NFT_TABLE_PREFIX)) != 0)
                return MNL_CB_OK;
        if (strv_push(names, mnl_attr_get_str(a)) >= 0)
                return MNL_CB_OK;
        errno = ENOMEM;
        return MNL_CB_ERROR;
}

int nft_tables(struct nl_sock *s, char ***ret, struct err *e)
{
        AUTO(strv_free) char **names = NULL;
        int r = -EINTR;

        for (int i = 0; r == -EINTR && i < LIST_TRIES; i++) {
                struct nl_batch b;

                names = strv_free(names);
                nl_batch_init(&b);
                nft_message(&b, NFT_MSG_GETTABLE, NLM_F_DUMP, "list firewall tables");
                r = nl_query(s, &b, on_table, &names, e);
        }
        if (r >= 0)
                *ret = TAKE(names);
        return r;
}
