/* usage.c - see usage.h.  hypervisor-vmm, before anything is started. */
#include "engine/usage.h"

#include <errno.h>

#include "base/text.h"

const struct usage_verb usage_verbs[VERB_COUNT] = {
        [VERB_STANDALONE] = { "standalone",
                              { { "--data-dir", ARG_DIR, true,
                                  "where everything that must last is kept; made when it is missing" },
                                { "--listen", ARG_ADDRESS, true,
                                  "where the API serves plain HTTP" },
                                { "--config", ARG_FILE, false,
                                  "configuration file; without it every option has its default" } },
                              .summary = "run one host: engine and API together, until SIGTERM",
                              .detail =
                                      "Prints \"ready\" on standard output once both serve. "
                                      "Clusters go on running when it ends and are adopted when it starts again. "
                                      "The key of the first account is in DIR/admin.key; DIR/seal.key seals "
                                      "what the store keeps secret, and a copy of the store is of no use "
                                      "without it." },
        [VERB_DOCTOR] = { "doctor",
                          { { "--config", ARG_FILE, false,
                              "configuration file to judge by; without it every option has its default" } },
                          .summary =
                                  "print what this kernel offers and what follows from what it lacks",
                          .detail = "The exit status is 1 when this host cannot run clusters." },
        [VERB_CONFIG] = { "config", .summary = "print every configuration option with its default",
                          .detail = "The output is a configuration file." },
        [VERB_CDI] = { "cdi",
                       { { "--config", ARG_FILE, false,
                           "configuration file; without it every option has its default" },
                         { "--root", ARG_DIR, false,
                           "where the files of the driver lie, when that is not /" } },
                       .operand = ARG_CDI,
                       .operand_needed = true,
                       .summary = "print the installed GPU driver as a CDI specification",
                       .detail =
                               "The one command is generate; its output belongs in "
                               "/etc/cdi/nvidia.yaml, for other container runtimes. "
                               "Clusters need no such file, and are bound by it where there is one. "
                               "Devices are named by index and by UUID, and \"all\"." },
        [VERB_VERSION] = { "version", .summary = "print the version" },
        [VERB_HELP] = { "help", .operand = ARG_VERB, .summary = "say more about a command" },
        [VERB_MAN] = { "man", .operand = ARG_PAGE, .hidden = true,
                       .summary = "print a manual page's source" },
        [VERB_COMPLETION] = { "completion", .operand = ARG_SHELL, .operand_needed = true,
                              .hidden = true, .summary = "print the completion script of a shell" },
};

/* What an argument is called, and how each shell completes it. */
static const struct {
        const char *title, *words, *bash, *zsh, *fish;
} args[ARG_COUNT] = {
        [ARG_DIR] = { "DIR", NULL, "-d", "_files -/", "(__fish_complete_directories)" },
        [ARG_FILE] = { "FILE", NULL, "-f", "_files", NULL },
        [ARG_ADDRESS] = { "ADDRESS:PORT", "127.0.0.1:8080", NULL, NULL, NULL },
        [ARG_VERB] = { "COMMAND", "standalone doctor config cdi version", NULL, NULL, NULL },
        [ARG_CDI] = { "generate", "generate", NULL, NULL, NULL },
        [ARG_PAGE] = { "PAGE", USAGE_PROGRAM " " USAGE_PROGRAM ".conf", NULL, NULL, NULL },
        [ARG_SHELL] = { "SHELL", "bash zsh fish", NULL, NULL, NULL },
};

enum usage_verb_id usage_find(const char *name)
{
        for (enum usage_verb_id id = VERB_NONE + 1; id < VERB_COUNT; id++)
                if (str_eq(usage_verbs[id].name, name))
                        return id;
        return VERB_NONE;
}

const char *usage_near(const char *name)
{
        const char *words[VERB_COUNT];
        size_t n = 0;

        for (enum usage_verb_id id = VERB_NONE + 1; id < VERB_COUNT; id++)
                if (!usage_verbs[id].hidden)
                        words[n++] = usage_verbs[id].name;
        return text_nearest(name, words, n);
}

const char *usage_arg_title(enum usage_arg arg)
{
        return args[arg].title;
}

/* ---- arguments ----------------------------------------------------------------------------- */

/* 1: *@word (and perhaps the next) was flag @f; 0: it is not; or -EINVAL. */
static int take_flag(const struct usage_verb *v, size_t f, char ***word, struct usage_args *a,
                     struct err *e)
{
        const char *rest = str_after(**word, v->flags[f].name);

        if (!rest || (*rest && *rest != '='))
                return 0;
        if (a->flag[f])
                return err_set(e, -EINVAL, "%s: %s is given twice", v->name, v->flags[f].name);
        if (*rest == '=')
                a->flag[f] = rest + 1;
        else
                a->flag[f] = *++*word;
        if (str_empty(a->flag[f]))
                return err_set(e, -EINVAL, "%s: %s wants a value: %s", v->name, v->flags[f].name,
                               args[v->flags[f].arg].title);
        return 1;
}

static int unknown_flag(const struct usage_verb *v, const char *word, struct err *e)
{
        const char *names[USAGE_FLAGS], *near;
        size_t n = 0;

        for (; n < USAGE_FLAGS && v->flags[n].name; n++)
                names[n] = v->flags[n].name;
        near = text_nearest(word, names, n);
        return err_set(e, -EINVAL, "%s: unknown argument '%s'%s%s%s", v->name, word,
                       near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static int missing(const struct usage_verb *v, const char *what, struct err *e)
{
        return err_set(e, -EINVAL, "%s: %s is needed; see " USAGE_PROGRAM " %s --help", v->name,
                       what, v->name);
}

int usage_parse(enum usage_verb_id id, char **argv, struct usage_args *ret, struct err *e)
{
        const struct usage_verb *v = &usage_verbs[id];
        struct usage_args a = { .help = false };

        for (; *argv; argv++) {
                int r = 0;

                if (str_eq(*argv, "--help") || str_eq(*argv, "-h")) {
                        *ret = (struct usage_args){ .help = true };
                        return 0;
                }
                for (size_t f = 0; f < USAGE_FLAGS && v->flags[f].name && r == 0; f++)
                        r = take_flag(v, f, &argv, &a, e);
                if (r < 0)
                        return r;
                if (r == 0 && (**argv == '-' || v->operand == ARG_NONE || a.operand))
                        return unknown_flag(v, *argv, e);
                if (r == 0)
                        a.operand = *argv;
        }
        for (size_t f = 0; f < USAGE_FLAGS && v->flags[f].name; f++)
                if (v->flags[f].needed && !a.flag[f])
                        return missing(v, v->flags[f].name, e);
        if (v->operand_needed && !a.operand)
                return missing(v, args[v->operand].title, e);
        *ret = a;
        return 0;
}

/* ---- help ---------------------------------------------------------------------------------- */

/* " --data-dir DIR [--config FILE]" */
static void synopsis(const struct usage_verb *v, struct strbuf *b)
{
        for (const struct usage_flag *f = v->flags; f < v->flags + USAGE_FLAGS && f->name; f++)
                strbuf_fmt(b, " %s%s %s%s", f->needed ? "" : "[", f->name, args[f->arg].title,
                           f->needed ? "" : "]");
        if (v->operand)
                strbuf_fmt(b, v->operand_needed ? " %s" : " [%s]", args[v->operand].title);
}

void usage_all(struct strbuf *b)
{
        strbuf_str(b,
                   USAGE_PROGRAM " - turns a GPU host into a multi-tenant GPU cloud\n\nUsage:\n");
        for (enum usage_verb_id id = VERB_NONE + 1; id < VERB_COUNT; id++) {
                const struct usage_verb *v = &usage_verbs[id];

                if (v->hidden)
                        continue;
                strbuf_fmt(b, "  " USAGE_PROGRAM " %s", v->name);
                synopsis(v, b);
                strbuf_fmt(b, "\n        %s\n", v->summary);
        }
        strbuf_str(
                b,
                "\nExample:\n  " USAGE_PROGRAM
                " standalone --data-dir /var/lib/hypervisor-vmm --listen 127.0.0.1:8080\n\n" USAGE_PROGRAM
                " COMMAND --help says more about a command.\n");
}

void usage_help(enum usage_verb_id id, struct strbuf *b)
{
        const struct usage_verb *v = &usage_verbs[id];
        const char *p = v->detail, *end;

        strbuf_fmt(b, "usage: " USAGE_PROGRAM " %s", v->name);
        synopsis(v, b);
        strbuf_fmt(b, "\n\n%c%s.\n", v->summary[0] - 'a' + 'A', v->summary + 1);
        for (; p && *p; p = *end ? end + 2 : end) { /* a line for each sentence */
                end = strstr(p, ". ");
                end = end ? end : p + strlen(p);
                strbuf_add(b, p, (size_t) (end - p));
                strbuf_str(b, *end ? ".\n" : "\n");
        }
        if (v->flags[0].name)
                strbuf_str(b, "\nOptions:\n");
        for (const struct usage_flag *f = v->flags; f < v->flags + USAGE_FLAGS && f->name; f++)
                strbuf_fmt(b, "  %s %s\n          %s\n", f->name, args[f->arg].title, f->help);
}

/* ---- completion ---------------------------------------------------------------------------- */

static void verb_names(struct strbuf *b)
{
        for (enum usage_verb_id id = VERB_NONE + 1; id < VERB_COUNT; id++)
                if (!usage_verbs[id].hidden)
                        strbuf_fmt(b, " %s", usage_verbs[id].name);
}

static void bash_arg(enum usage_arg arg, const char *indent, struct strbuf *b)
{
        if (args[arg].words)
                strbuf_fmt(b, "%sCOMPREPLY=($(compgen -W \"%s\" -- \"$cur\"))\n", indent,
                           args[arg].words);
        else if (args[arg].bash)
                strbuf_fmt(b, "%sCOMPREPLY=($(compgen %s -- \"$cur\"))\n", indent, args[arg].bash);
}

static void bash_verb(const struct usage_verb *v, struct strbuf *b)
{
        strbuf_fmt(b, "        %s)\n                case $prev in\n", v->name);
        for (const struct usage_flag *f = v->flags; f < v->flags + USAGE_FLAGS && f->name; f++) {
                strbuf_fmt(b, "                %s)\n", f->name);
                bash_arg(f->arg, "                        ", b);
                strbuf_str(b, "                        return ;;\n");
        }
        strbuf_str(b, "                esac\n");
        if (v->operand)
                bash_arg(v->operand, "                ", b);
        strbuf_str(b, "                COMPREPLY+=($(compgen -W \"--help");
        for (const struct usage_flag *f = v->flags; f < v->flags + USAGE_FLAGS && f->name; f++)
                strbuf_fmt(b, " %s", f->name);
        strbuf_str(b, "\" -- \"$cur\"))\n                ;;\n");
}

static void bash_script(struct strbuf *b)
{
        strbuf_str(b,
                   "# bash completion for " USAGE_PROGRAM ", generated by it; do not edit.\n"
                   "_hypervisor_vmm() {\n"
                   "        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
                   "        COMPREPLY=()\n"
                   "        if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
                   "                COMPREPLY=($(compgen -W \"");
        verb_names(b);
        strbuf_str(b, "\" -- \"$cur\"))\n                return\n        fi\n"
                      "        case ${COMP_WORDS[1]} in\n");
        for (enum usage_verb_id id = VERB_NONE + 1; id < VERB_COUNT; id++)
                if (!usage_verbs[id].hidden)
                        bash_verb(&usage_verbs[id], b);
        strbuf_str(b, "        esac\n}\ncomplete -F _hypervisor_vmm " USAGE_PROGRAM "\n");
}

/* ":DIR:_files -/", for _arguments. */
static void zsh_arg(enum usage_arg arg, struct strbuf *b)
{
        bool address = arg == ARG_ADDRESS; /* colons end words there */

        strbuf_fmt(b, ":%s:", address ? "ADDRESS" : args[arg].title);
        if (args[arg].words && !address)
                strbuf_fmt(b, "(%s)", args[arg].words);
        else if (args[arg].zsh)
                strbuf_str(b, args[arg].zsh);
}

static void zsh_script(struct strbuf *b)
{
        strbuf_str(b, "#compdef " USAGE_PROGRAM "\n# zsh completion, generated by " USAGE_PROGRAM
                      "; do not edit.\n_hypervisor_vmm() {\n"
                      "        local verb=$words[2]\n"
                      "        if (( CURRENT == 2 )); then\n                compadd --");
        verb_names(b);
        strbuf_str(b, "\n                return\n        fi\n"
                      "        shift 1 words; (( CURRENT -= 1 ))\n        case $verb in\n");
        for (enum usage_verb_id id = VERB_NONE + 1; id < VERB_COUNT; id++) {
                const struct usage_verb *v = &usage_verbs[id];

                if (v->hidden)
                        continue;
                strbuf_fmt(b, "        (%s) _arguments '--help[say more about it]'", v->name);
                for (const struct usage_flag *f = v->flags; f < v->flags + USAGE_FLAGS && f->name;
                     f++) {
                        strbuf_fmt(b, " \\\n                '%s[%s]", f->name, f->help);
                        zsh_arg(f->arg, b);
                        strbuf_char(b, '\'');
                }
                if (v->operand) {
                        strbuf_str(b, " \\\n                '1");
                        zsh_arg(v->operand, b);
                        strbuf_char(b, '\'');
                }
                strbuf_str(b, " ;;\n");
        }
        strbuf_str(b, "        esac\n}\nif [ \"$funcstack[1]\" = _" USAGE_PROGRAM " ]; then\n"
                      "        _hypervisor_vmm \"$@\"\nelse\n"
                      "        compdef _hypervisor_vmm " USAGE_PROGRAM "\nfi\n");
}

/* What completes @arg: " -a ...", or files. */
static void fish_arg(enum usage_arg arg, struct strbuf *b)
{
        const char *words = args[arg].words ? args[arg].words : args[arg].fish;

        if (words)
                strbuf_fmt(b, " -a '%s'", words);
        else
                strbuf_str(b, " -F");
}

static void fish_script(struct strbuf *b)
{
        strbuf_str(b, "# fish completion for " USAGE_PROGRAM ", generated by it; do not edit.\n"
                      "complete -c " USAGE_PROGRAM " -f\n");
        for (enum usage_verb_id id = VERB_NONE + 1; id < VERB_COUNT; id++) {
                const struct usage_verb *v = &usage_verbs[id];

                if (v->hidden)
                        continue;
                strbuf_fmt(b,
                           "complete -c " USAGE_PROGRAM " -n __fish_use_subcommand -a %s -d '%s'\n",
                           v->name, v->summary);
                for (const struct usage_flag *f = v->flags; f < v->flags + USAGE_FLAGS && f->name;
                     f++) {
                        strbuf_fmt(b,
                                   "complete -c " USAGE_PROGRAM
                                   " -n '__fish_seen_subcommand_from %s' -l %s -r -d '%s'",
                                   v->name, f->name + 2, f->help);
                        fish_arg(f->arg, b);
                        strbuf_char(b, '\n');
                }
                if (v->operand) {
                        strbuf_fmt(b,
                                   "complete -c " USAGE_PROGRAM
                                   " -n '__fish_seen_subcommand_from %s'",
                                   v->name);
                        fish_arg(v->operand, b);
                        strbuf_char(b, '\n');
                }
        }
}

int usage_completion(const char *shell, struct strbuf *b)
{
        static const struct {
                const char *shell;
                void (*fn)(struct strbuf *b);
        } rows[] = { { "bash", bash_script }, { "zsh", zsh_script }, { "fish", fish_script } };

        for (size_t i = 0; i < NELEM(rows); i++) {
                if (!str_eq(rows[i].shell, shell))
                        continue;
                rows[i].fn(b);
                return 0;
        }
        return -EINVAL;
}
