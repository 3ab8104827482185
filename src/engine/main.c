/* main.c - hypervisor-vmm: the command line of the node engine.  usage.c has the verbs. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "engine/cdi_verb.h"
#include "engine/doctor.h"
#include "engine/rights.h"
#include "engine/standalone.h"
#include "engine/usage.h"

typedef int verb_fn(const struct usage_args *a, struct err *e);

/* Print what was put together. */
static int show(const struct strbuf *b, struct err *e)
{
        if (b->failed)
                return err_set(e, -ENOMEM, "out of memory");
        if (fputs(b->s ? b->s : "", stdout) == EOF || fflush(stdout) == EOF)
                return err_set(e, -EIO, "standard output cannot be written");
        return 0;
}

static int unknown_verb(const char *name, struct err *e)
{
        const char *near = usage_near(name);

        if (near)
                return err_set(e, -EINVAL, "unknown command '%s'; did you mean '%s'?", name, near);
        return err_set(e, -EINVAL, "unknown command '%s'; try: " USAGE_PROGRAM " help", name);
}

static int verb_help(const struct usage_args *a, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        enum usage_verb_id id = a->operand ? usage_find(a->operand) : VERB_NONE;

        if (a->operand && id == VERB_NONE)
                return unknown_verb(a->operand, e);
        if (id == VERB_NONE)
                usage_all(&b);
        else
                usage_help(id, &b);
        return show(&b, e);
}

static int verb_version(const struct usage_args *a, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        (void) a;
        strbuf_str(&b, USAGE_PROGRAM " " HVMM_VERSION "\n");
        return show(&b, e);
}

static int verb_doctor(const struct usage_args *a, struct err *e)
{
        return doctor_run(stdout, a->flag[0], e);
}

static int verb_config(const struct usage_args *a, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        (void) a;
        manual_sample(&b);
        return show(&b, e);
}

static int verb_cdi(const struct usage_args *a, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        int r;

        if (!str_eq(a->operand, "generate"))
                return err_set(e, -EINVAL, "cdi: unknown command '%s'; the one there is: generate",
                               a->operand);
        r = cdi_generate(a->flag[0], a->flag[1], &b, e);
        return r < 0 ? r : show(&b, e);
}

static int verb_man(const struct usage_args *a, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        const char *page = a->operand ? a->operand : USAGE_PROGRAM;

        if (manual_page(page, &b) < 0)
                return err_set(e, -EINVAL, "there is no manual page '%s'", page);
        return show(&b, e);
}

static int verb_completion(const struct usage_args *a, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        if (usage_completion(a->operand, &b) < 0)
                return err_set(e, -EINVAL, "unknown shell '%s'; one of: bash, zsh, fish",
                               a->operand);
        return show(&b, e);
}

static int verb_standalone(const struct usage_args *a, struct err *e)
{
        const struct standalone_args s = { .data_dir = a->flag[0],
                                           .listen = a->flag[1],
                                           .config = a->flag[2] };
        int r;

        if (geteuid() != 0)
                return err_set(e, -EPERM, "standalone: must run as root");
        r = rights_keep(e);
        return r < 0 ? r : standalone_run(&s, e);
}

static verb_fn *const verbs[] = {
        [VERB_STANDALONE] = verb_standalone,
        [VERB_DOCTOR] = verb_doctor,
        [VERB_CONFIG] = verb_config,
        [VERB_CDI] = verb_cdi,
        [VERB_VERSION] = verb_version,
        [VERB_HELP] = verb_help,
        [VERB_MAN] = verb_man,
        [VERB_COMPLETION] = verb_completion,
};
static_assert(NELEM(verbs) == VERB_COUNT, "a function for each verb");

static int run(const char *name, char **argv, struct err *e)
{
        enum usage_verb_id id = usage_find(name);
        struct usage_args a = { .help = false };
        int r;

        if (id == VERB_NONE)
                return unknown_verb(name, e);
        r = usage_parse(id, argv, &a, e);
        if (r < 0)
                return r;
        if (!a.help)
                return verbs[id](&a, e);
        a = (struct usage_args){ .operand = name };
        return verb_help(&a, e);
}

int main(int argc, char **argv)
{
        const char *name = argc > 1 ? argv[1] : "help";
        struct err e = { 0 };

        log_init(USAGE_PROGRAM, LOG_LVL_INFO);
        if (str_eq(name, "--help") || str_eq(name, "-h"))
                name = "help";
        if (str_eq(name, "--version"))
                name = "version";
        if (run(name, argv + (argc > 1 ? 2 : 1), &e) >= 0)
                return 0;
        (void) fprintf(stderr, USAGE_PROGRAM ": %s\n", e.msg);
        return 1;
}
