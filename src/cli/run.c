/* run.c - one invocation from its words to its exit status.  Runs in tensoronecli. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/jsonx.h"
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/config.h"
#include "cli/help.h"

int cmd_version(struct cli *c, struct err *e)
{
        if (cli_json(c)) {
                AUTO(json_put) json_t *j = json_pack("{s:s}", "version", HVMM_VERSION);

                return j ? out_json(j, e) : err_set(e, -ENOMEM, "out of memory");
        }
        return out_printf(e, CLI_PROGRAM " %s\n", HVMM_VERSION);
}

static int print_help(const struct cli *c, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        if (c->verb)
                help_verb(c->verb, &b);
        else if (c->group)
                help_group(c->group, &b);
        else
                help_all(&b);
        return b.failed ? err_set(e, -ENOMEM, "out of memory") : out_printf(e, "%s", b.s);
}

/* --ca, for this program and what it starts (ssh starts it again). */
static int trust_alone(const struct cli *c, struct err *e)
{
        AUTO(free) char *path = realpath(c->opt[OPT_CA].s, NULL);

        if (!path)
                return err_errno(e, -errno, "--ca: %s", c->opt[OPT_CA].s);
        return setenv(CONFIG_CA_VARIABLE, path, 1) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

static int run(struct cli *c, int argc, char **argv, struct err *e)
{
        int r = cli_parse(c, argc, argv, e);

        if (r < 0)
                return r;
        if (c->version)
                return cmd_version(c, e);
        if (c->help || !c->verb) {
                r = print_help(c, e);
                /* a bare `tensoronecli` is a mistake that gets the help as its answer */
                return r < 0 ? r : argc == 0;
        }
        if (c->verb->needs_api && c->opt[OPT_CA].given) {
                r = trust_alone(c, e);
                if (r < 0)
                        return r;
        }
        if (c->verb->needs_api) {
                r = api_new(&c->api, e);
                if (r < 0)
                        return r;
        }
        return c->verb->run(c, e);
}

int cli_main(int argc, char **argv)
{
        struct cli c = { 0 };
        struct err e = { 0 };
        int r = run(&c, argc - 1, argv + 1, &e);

        if (r < 0)
                out_error(e.msg);
        c.api = api_free(c.api);
        cli_done(&c);
        return r < 0 ? 1 : r;
}
