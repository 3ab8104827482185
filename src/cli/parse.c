/* parse.c - words into an invocation, by the tables.  Pure but for the two allocations of lists.
 *
 * Options may stand before, between and behind the operands; "--" ends them.  Short options of
 * kind BOOL may be joined (-it).  A verb that runs a command of the user's stops looking for
 * options at the first word after its operand, so the command's own options stay untouched. */
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "base/str.h"
#include "base/text.h"

/* @v NULL: the program's own help is meant. */
static int see_help(struct err *e, const char *what, const char *dashes, const char *word,
                    const struct verb *v)
{
        const char *noun = v && v->noun ? v->noun : "";

        return err_set(e, -EINVAL, "unknown %s \"%s%s\"; see " CLI_PROGRAM "%s%s%s%s --help", what,
                       dashes, word, v ? " " : "", v ? v->word : "", *noun ? " " : "", noun);
}

static int unknown_verb(const char *word, struct err *e)
{
        const char *words[64], *near;
        size_t n = 0;

        for (size_t i = 0; i < n_verbs && n < NELEM(words); i++)
                if (!verbs[i].hidden)
                        words[n++] = verbs[i].word;
        near = text_nearest(word, words, n);
        if (near)
                return err_set(e, -EINVAL, "unknown command \"%s\"; did you mean \"%s\"?", word,
                               near);
        return see_help(e, "command", "", word, NULL);
}

/* @noun NULL: none was given. */
static int unknown_noun(const char *word, const char *noun, struct err *e)
{
        AUTO(strbuf_done) struct strbuf list = { 0 };
        const char *nouns[16], *near;
        size_t n = 0;

        for (size_t i = 0; i < n_verbs && n < NELEM(nouns); i++) {
                if (!str_eq(verbs[i].word, word))
                        continue;
                strbuf_fmt(&list, "%s%s", n ? ", " : "", verbs[i].noun);
                nouns[n++] = verbs[i].noun;
        }
        if (list.failed || n == 0)
                return err_set(e, -ENOMEM, "out of memory");
        if (!noun)
                return err_set(e, -EINVAL, "%s what? One of: %s", word, list.s);
        near = text_nearest(noun, nouns, n);
        if (near)
                return err_set(e, -EINVAL, "unknown command \"%s %s\"; did you mean \"%s %s\"?",
                               word, noun, word, near);
        return err_set(e, -EINVAL, "unknown command \"%s %s\"; %s takes one of: %s", word, noun,
                       word, list.s);
}

static int unknown_option(const struct verb *v, const char *name, struct err *e)
{
        const char *names[OPT_COUNT], *near;
        size_t n = 0;

        for (enum opt_id id = OPT_NONE + 1; id < OPT_COUNT; id++)
                if (v && verb_takes(v, id))
                        names[n++] = options[id].name;
        near = text_nearest(name, names, n);
        if (near)
                return err_set(e, -EINVAL, "unknown option \"--%s\"; did you mean \"--%s\"?", name,
                               near);
        return see_help(e, "option", "--", name, v);
}

static enum opt_id option_by_name(const struct verb *v, const char *name, size_t len)
{
        for (enum opt_id id = OPT_NONE + 1; id < OPT_COUNT; id++) {
                const struct option *o = &options[id];

                if (strlen(o->name) == len && strncmp(o->name, name, len) == 0 &&
                    (v ? verb_takes(v, id) : option_is_global(id)))
                        return id;
        }
        return OPT_NONE;
}

static enum opt_id option_by_letter(const struct verb *v, char letter)
{
        for (enum opt_id id = OPT_NONE + 1; id < OPT_COUNT; id++)
                if (options[id].letter == letter && (v ? verb_takes(v, id) : option_is_global(id)))
                        return id;
        return OPT_NONE;
}

static bool word_in(const char *words, const char *s)
{
        size_t n = strlen(s);

        for (const char *p = words; n && !strchr(s, ' ') && (p = strstr(p, s)); p++)
                if ((p == words || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
                        return true;
        return false;
}

static int set_float(const struct option *o, const char *s, double *ret, struct err *e)
{
        char *end = NULL;
        double f = strtod(s, &end);

        if (end == s || *end || !isfinite(f) || f < 0)
                return err_set(e, -EINVAL, "--%s: \"%s\" is not an amount", o->name, s);
        *ret = f;
        return 0;
}

static int set_int(const struct option *o, const char *s, uint64_t *ret, struct err *e)
{
        int r = str_u64(s, o->min, o->max, ret);

        if (r == -ERANGE || (r < 0 && s[0] == '-' && str_u64(s + 1, 0, UINT64_MAX, ret) == 0))
                return err_set(e, -ERANGE, "--%s: %s is outside %llu..%llu", o->name, s,
                               (unsigned long long) o->min, (unsigned long long) o->max);
        if (r < 0)
                return err_set(e, r, "--%s: \"%s\" is not a whole number", o->name, s);
        return 0;
}

static int set_value(struct opt_value *v, const struct option *o, const char *s, struct err *e)
{
        v->s = s;
        switch (o->kind) {
        case OPT_KIND_BOOL:
                if (!str_eq(s, "true") && !str_eq(s, "false"))
                        return err_set(e, -EINVAL, "--%s: \"%s\" is neither true nor false",
                                       o->name, s);
                v->b = str_eq(s, "true");
                return 0;
        case OPT_KIND_STR:
                if (o->words && !word_in(o->words, s))
                        return err_set(e, -EINVAL, "--%s: \"%s\" is not one of: %s", o->name, s,
                                       o->words);
                return 0;
        case OPT_KIND_INT:
                return set_int(o, s, &v->n, e);
        case OPT_KIND_FLOAT:
                return set_float(o, s, &v->f, e);
        case OPT_KIND_LIST:
                return strv_push(&v->list, s) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
        case OPT_KIND_NONE:
        case OPT_KIND_COUNT:
                break;
        }
        return err_set(e, -EINVAL, "--%s: an option without a kind", o->name);
}

static int give(struct cli *c, enum opt_id id, const char *s, struct err *e)
{
        c->opt[id].given = true;
        if (id == OPT_HELP)
                c->help = true;
        return set_value(&c->opt[id], &options[id], s, e);
}

/* The words and how far we are; NULL-terminated as argv always is. */
struct words {
        char **v;
        int n, i;
};

static int parse_long(struct cli *c, struct words *w, struct err *e)
{
        const char *name = w->v[w->i] + 2, *eq = strchr(name, '=');
        size_t len = eq ? (size_t) (eq - name) : strlen(name);
        enum opt_id id = option_by_name(c->verb, name, len);

        if (!c->verb && str_eq(name, "version")) {
                c->version = true;
                return 0;
        }
        if (id == OPT_NONE) {
                AUTO(free) char *bare = strndup(name, len);

                return unknown_option(c->verb, bare ? bare : "", e);
        }
        if (eq)
                return give(c, id, eq + 1, e);
        if (options[id].kind == OPT_KIND_BOOL)
                return give(c, id, "true", e);
        if (w->i + 1 >= w->n)
                return err_set(e, -EINVAL, "--%s needs a value: --%s %s", options[id].name,
                               options[id].name, options[id].arg);
        return give(c, id, w->v[++w->i], e);
}

static int parse_short(struct cli *c, struct words *w, struct err *e)
{
        for (const char *p = w->v[w->i] + 1; *p; p++) {
                enum opt_id id = option_by_letter(c->verb, *p);
                int r;

                if (id == OPT_NONE)
                        return see_help(e, "option", "-", (const char[]){ *p, '\0' }, c->verb);
                if (options[id].kind == OPT_KIND_BOOL) {
                        r = give(c, id, "true", e);
                        if (r < 0)
                                return r;
                        continue;
                }
                if (p[1]) /* -ojson, -o=json */
                        return give(c, id, p + 1 + (p[1] == '='), e);
                if (w->i + 1 >= w->n)
                        return err_set(e, -EINVAL, "-%c needs a value: -%c %s", *p, *p,
                                       options[id].arg);
                return give(c, id, w->v[++w->i], e);
        }
        return 0;
}

static bool is_option(const char *word)
{
        return word[0] == '-' && word[1]; /* "-" alone is standard input */
}

static int parse_option(struct cli *c, struct words *w, struct err *e)
{
        return w->v[w->i][1] == '-' ? parse_long(c, w, e) : parse_short(c, w, e);
}

/* The verb's one or two words, global options before them allowed.  1: help or version only. */
static int parse_verb(struct cli *c, struct words *w, struct err *e)
{
        const char *word, *noun;
        bool known = false, wants_help = false;

        for (; w->i < w->n && is_option(w->v[w->i]); w->i++) {
                int r = parse_option(c, w, e);

                if (r < 0)
                        return r;
        }
        if (w->i < w->n && str_eq(w->v[w->i], "help")) {
                c->help = wants_help = true;
                w->i++;
        }
        if (w->i >= w->n) {
                c->help = c->help || !c->version;
                return 1;
        }
        word = w->v[w->i++];
        for (size_t i = 0; i < n_verbs; i++)
                known = known || str_eq(verbs[i].word, word);
        if (!known)
                return unknown_verb(word, e);
        noun = w->i < w->n && !is_option(w->v[w->i]) ? w->v[w->i] : NULL;
        c->verb = verb_find(word, noun);
        if (!c->verb && !noun && (wants_help || w->i < w->n)) {
                /* "create --help": the list of what can be created */
                for (; !c->help && w->i < w->n; w->i++)
                        c->help = str_eq(w->v[w->i], "--help") || str_eq(w->v[w->i], "-h");
                if (c->help) {
                        c->group = word;
                        return 1;
                }
        }
        if (!c->verb)
                return unknown_noun(word, noun, e);
        if (c->verb->noun)
                w->i++;
        return wants_help ? 1 : 0;
}

static void set_presets(struct cli *c)
{
        for (enum opt_id id = OPT_NONE + 1; id < OPT_COUNT; id++) {
                struct opt_value *v = &c->opt[id];

                if (v->given || !options[id].preset)
                        continue;
                (void) set_value(v, &options[id], options[id].preset,
                                 NULL); /* ours: always right */
        }
}

static int check_operands(const struct cli *c, struct err *e)
{
        const struct verb *v = c->verb;
        char title[64];

        (void) verb_title(v, title, sizeof title);
        if (c->n_operands < v->min || (v->command && !v->maybe && !(c->command && c->command[0])))
                return err_set(e, -EINVAL, "usage: " CLI_PROGRAM " %s %s", title, v->operands);
        if (c->n_operands > v->max)
                return err_set(e, -EINVAL, "unexpected \"%s\"; usage: " CLI_PROGRAM " %s%s%s",
                               c->operands[v->max], title, *v->operands ? " " : "", v->operands);
        for (size_t i = 0; i < c->n_operands; i++)
                if (str_empty(c->operands[i]))
                        return err_set(e, -EINVAL,
                                       "an operand is empty; usage: " CLI_PROGRAM " %s %s", title,
                                       v->operands);
        return 0;
}

int cli_parse(struct cli *c, int argc, char **argv, struct err *e)
{
        struct words w = { argv, argc, 0 };
        bool only_operands = false;
        int r = parse_verb(c, &w, e);

        set_presets(c);
        if (r != 0)
                return r < 0 ? r : 0;
        c->operands = argv; /* kept operands move to the front, behind what was read already */
        for (; w.i < w.n; w.i++) {
                char *word = w.v[w.i];

                if (!only_operands && str_eq(word, "--")) {
                        if (c->verb->command) {
                                c->command = w.v + w.i + 1;
                                break;
                        }
                        only_operands = true;
                } else if (!only_operands && is_option(word)) {
                        r = parse_option(c, &w, e);
                        if (r < 0)
                                return r;
                } else if (c->verb->command && c->n_operands == c->verb->max) {
                        c->command = w.v + w.i;
                        break;
                } else {
                        c->operands[c->n_operands++] = word;
                }
        }
        return c->help ? 0 : check_operands(c, e);
}

void cli_done(struct cli *c)
{
        for (size_t i = 0; i < OPT_COUNT; i++)
                c->opt[i].list = strv_free(c->opt[i].list);
}
