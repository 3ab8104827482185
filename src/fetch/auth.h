/* auth.h - what a registry asks for in WWW-Authenticate, and what its token service answers.  Pure. */
#pragma once
#include "base/err.h"
#include "base/mem.h"

enum auth_kind { AUTH_NONE, AUTH_BASIC, AUTH_BEARER, AUTH_KIND_COUNT };

struct auth_challenge {
        enum auth_kind kind;
        char *realm, *service, *scope;
};

/* Read one header value, which may hold several challenges; Bearer wins over Basic, others are
 * passed over.  @ret keeps what an earlier header gave when that was better.  -EINVAL: not a list
 * of challenges. */
int auth_parse(const char *header, struct auth_challenge *ret, struct err *e);
void auth_challenge_done(struct auth_challenge *c);

/* realm with service, scope and account added to its query; the caller frees. */
int auth_token_url(const struct auth_challenge *c, const char *repository, const char *account,
                   char **ret, struct err *e);

/* "Bearer TOKEN" out of the token service's JSON answer; the caller wipes and frees. */
int auth_token_parse(const char *text, size_t len, char **ret, struct err *e);

/* "Basic BASE64"; NULL when out of memory. */
char *auth_basic(const char *username, const char *password);

static inline void auth_challenge_done_cleanup(struct auth_challenge *c)
{
        auth_challenge_done(c);
}
