/* tickets.c - see tickets.h.  tensorone-api, loop thread. */
#include "control/rest/tickets.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/proc.h"
#include "base/str.h"

struct ticket {
        unsigned char digest[SHA256_DIGEST_LENGTH];
        uint64_t until_us; /* 0: free */
        struct caller who;
        char cluster[LIMIT_CLUSTER_ID_LEN + 1];
};

struct tickets {
        struct ticket at[TICKETS_MAX];
};

struct tickets *tickets_new(void)
{
        return calloc(1, sizeof(struct tickets));
}

struct tickets *tickets_free(struct tickets *t)
{
        if (t)
                explicit_bzero(t, sizeof *t);
        free(t);
        return NULL;
}

/* A place for one more, or NULL. */
static struct ticket *find_room(struct tickets *t, const struct caller *who, uint64_t now_us)
{
        struct ticket *room = NULL;
        unsigned mine = 0;

        for (struct ticket *k = t->at; k < t->at + TICKETS_MAX; k++) {
                if (k->until_us <= now_us)
                        room = k;
                else
                        mine += str_eq(k->who.account, who->account);
        }
        return mine < TICKETS_EACH ? room : NULL;
}

int tickets_issue(struct tickets *t, const struct caller *who, const char *cluster, uint64_t now_us,
                  char ret[static TICKET_CHARS + 1], struct err *e)
{
        struct ticket *k = find_room(t, who, now_us);
        unsigned char secret[TICKET_CHARS / 2];

        if (!k)
                return err_set(e, -EBUSY,
                               "too many tickets are waiting to be used; each lasts %u seconds",
                               (unsigned) (TICKET_LIFE_US / US_PER_S));
        if (RAND_bytes(secret, sizeof secret) != 1)
                return err_set(e, -EIO, "no random numbers");
        hex_encode(secret, sizeof secret, ret);
        explicit_bzero(secret, sizeof secret);
        (void) SHA256((const unsigned char *) ret, TICKET_CHARS, k->digest);
        k->who = *who;
        (void) snprintf(k->cluster, sizeof k->cluster, "%s", cluster);
        k->until_us = now_us + TICKET_LIFE_US;
        return 0;
}

bool tickets_take(struct tickets *t, const char *text, uint64_t now_us, struct caller *ret_who,
                  char ret_cluster[static LIMIT_CLUSTER_ID_LEN + 1])
{
        unsigned char digest[SHA256_DIGEST_LENGTH];
        bool good;

        if (strlen(text) != TICKET_CHARS)
                return false;
        (void) SHA256((const unsigned char *) text, TICKET_CHARS, digest);
        for (struct ticket *k = t->at; k < t->at + TICKETS_MAX; k++) {
                if (k->until_us == 0 || CRYPTO_memcmp(k->digest, digest, sizeof digest) != 0)
                        continue;
                good = k->until_us > now_us;
                if (good) {
                        *ret_who = k->who;
                        memcpy(ret_cluster, k->cluster, sizeof k->cluster);
                }
                explicit_bzero(k, sizeof *k);
                return good;
        }
        return false;
}
