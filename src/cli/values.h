/* values.h - option values into JSON input fields, by table.  Pure. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "cli/cli.h"

struct field_row {
        enum opt_id opt;
        const char *field;
};

/* Put each row's value into @input by the option's kind.  What has neither a value nor a preset
 * is left out; with @given_only presets are left out too. */
int values_json(const struct cli *c, const struct field_row *row, size_t n, bool given_only,
                json_t *input, struct err *e);

/* "A=1", "A=1,B=2" and "A=x,y" -> [{key, value}] as `env`; nothing when not given.  A comma begins
 * the next variable where KEY= follows it.  -EINVAL "wrong env value" names the entry. */
int values_env(const struct cli *c, enum opt_id id, json_t *input, struct err *e);

int values_egress(const struct cli *c, enum opt_id id, json_t *input, struct err *e);
int values_allowed_ips(const struct cli *c, json_t *input, struct err *e);
/* --idleTimeout and --idleAction. */
int values_idle(const struct cli *c, json_t *input, struct err *e);
/* All entries, joined by commas, as `ports`; nothing when not given. */
int values_ports(const struct cli *c, enum opt_id id, json_t *input, struct err *e);

/* A comma list into words, blanks around them removed; NULL gives an empty vector. */
int values_split(const char *list, char ***ret, struct err *e);

/* What has @word as its id or name, borrowed from @list.  -ENOENT: @none, which is "there is no ...", and
 * the word. */
int values_pick(const json_t *list, const char *word, const char *none, json_t **ret,
                struct err *e);

/* Whether @s is a NAME=VALUE with a usable name. */
bool values_is_env(const char *s);
