/* help.c - see help.h.  Runs in tensoronecli; tables in, text out. */
#include "cli/help.h"

#include "base/str.h"

#define WIDTH 80

/* @text behind @indent blanks, broken between words at WIDTH. */
static void wrap(const char *text, size_t indent, struct strbuf *b)
{
        size_t col = WIDTH;

        for (const char *p = text; *p;) {
                size_t n = strcspn(p, " ");

                if (col + 1 + n > WIDTH) {
                        if (p != text)
                                strbuf_char(b, '\n');
                        strbuf_fmt(b, "%*s", (int) indent, "");
                        col = indent;
                } else {
                        strbuf_char(b, ' ');
                        col++;
                }
                strbuf_add(b, p, n);
                col += n;
                p += n;
                p += strspn(p, " ");
        }
        strbuf_char(b, '\n');
}

void option_title(const struct option *o, struct strbuf *b)
{
        if (o->letter)
                strbuf_fmt(b, "-%c, ", o->letter);
        strbuf_fmt(b, "--%s", o->name);
        if (o->arg)
                strbuf_fmt(b, " %s", o->arg);
}

static void help_option(const struct option *o, struct strbuf *b)
{
        AUTO(strbuf_done) struct strbuf text = { 0 };

        strbuf_str(b, o->letter ? "  " : "      ");
        option_title(o, b);
        strbuf_char(b, '\n');
        strbuf_str(&text, o->help);
        if (o->words)
                strbuf_fmt(&text, "; one of: %s", o->words);
        if (o->preset)
                strbuf_fmt(&text, " (default: %s)", o->preset);
        wrap(text.s ? text.s : "", 10, b);
}

static void list_verbs(const char *word, struct strbuf *b)
{
        char title[64];

        for (size_t i = 0; i < n_verbs; i++) {
                const struct verb *v = &verbs[i];

                if (v->hidden || (word && !str_eq(v->word, word)))
                        continue;
                strbuf_fmt(b, "  %-20s %s\n", verb_title(v, title, sizeof title), v->summary);
        }
}

void help_all(struct strbuf *b)
{
        strbuf_str(b, "usage: " CLI_PROGRAM " COMMAND [OPTION...]\n\n"
                      "Rent and run GPU clusters through a TensorOne API.\n\nCommands:\n");
        list_verbs(NULL, b);
        strbuf_str(b, "\nOptions of every command:\n");
        for (const enum opt_id *o = global_options; *o != OPT_NONE; o++)
                help_option(&options[*o], b);
        strbuf_str(b, "\n" CLI_PROGRAM " COMMAND --help says more about a command.\n"
                      "First steps: " CLI_PROGRAM " config --apiUrl URL --apiKey KEY\n");
}

void help_group(const char *word, struct strbuf *b)
{
        strbuf_fmt(b, "usage: " CLI_PROGRAM " %s WHAT [OPTION...]\n\nCommands:\n", word);
        list_verbs(word, b);
        strbuf_fmt(b, "\n" CLI_PROGRAM " %s WHAT --help says more about a command.\n", word);
}

static void indent_lines(const char *text, struct strbuf *b)
{
        while (*text) {
                size_t n = strcspn(text, "\n");

                strbuf_str(b, "  ");
                strbuf_add(b, text, n);
                strbuf_char(b, '\n');
                text += n + (text[n] == '\n');
        }
}

void help_verb(const struct verb *v, struct strbuf *b)
{
        AUTO(strbuf_done) struct strbuf text = { 0 };
        char title[64];

        strbuf_fmt(b, "usage: " CLI_PROGRAM " %s [OPTION...]%s%s\n\n",
                   verb_title(v, title, sizeof title), *v->operands ? " " : "", v->operands);
        strbuf_fmt(&text, "%c%s.", v->summary[0] - 'a' + 'A', v->summary + 1);
        if (v->detail)
                strbuf_fmt(&text, " %s", v->detail);
        wrap(text.s ? text.s : "", 0, b);
        if (v->alias)
                strbuf_fmt(b, "\nAlso: " CLI_PROGRAM " %s %s\n", v->word, v->alias);
        strbuf_str(b, "\nOptions:\n");
        for (const enum opt_id *o = v->opts; *o != OPT_NONE; o++)
                help_option(&options[*o], b);
        for (const enum opt_id *o = global_options; *o != OPT_NONE; o++)
                help_option(&options[*o], b);
        if (v->examples) {
                strbuf_str(b, "\nExamples:\n");
                indent_lines(v->examples, b);
        }
}
