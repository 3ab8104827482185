/* keys.h - which API keys the edge knows, and whose they are: what HAProxy's map of keys should hold.
 *
 * A level, told by account: keys_begin(), keys_set() for each account, keys_end(); later keys_set() for one that has
 * changed.  The map has two lines for a key that opens private ports, "DIGEST ACCOUNT" and "ID ACCOUNT" (links name
 * their key by its id), and for any other "DIGEST -": it opens nothing, and must not be passed on.  Pure. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

#define KEYS_PER_ACCOUNT 10000U

struct keys;

/* @map: its name for HAProxy, the file's path; copied.  NULL: out of memory. */
struct keys *keys_new(const char *map);
struct keys *keys_free(struct keys *k);
DEFINE_AUTO(struct keys *, keys_free)

/* All of them are told from here on; those of accounts that are not are gone at keys_end(). */
void keys_begin(struct keys *k);
/* @list: [{"id", "sha256", "opens"}], all keys of @account.  Appends the commands for HAProxy's runtime socket, each
 * with a newline, that change the map accordingly; returns how many, or -EINVAL, -E2BIG, -ENOMEM with nothing changed. */
int keys_set(struct keys *k, const char *account, const json_t *list, struct strbuf *commands,
             struct err *e);
int keys_end(struct keys *k, struct strbuf *commands);
/* Since it was made, all have been told once. */
bool keys_complete(const struct keys *k);

/* The map as a file, and as commands for the version @version of it, which are counted. */
void keys_file(const struct keys *k, struct strbuf *b);
size_t keys_fill(const struct keys *k, unsigned version, struct strbuf *commands);
