/* cdi_tree.c - see cdi_tree.h.  Operation process, and `cdi` on the command line.
 *
 * The files are the operator's, not a tenant's; the limits are there because a mistake in one must end
 * in a sentence.  libyaml reads the events; JSON is YAML to it but for two escapes, which
 * json_escapes() rewrites first. */
#include "engine/gpu/cdi_tree.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/str.h"

struct reader {
        const char *name;
        yaml_parser_t parser;
        struct tree *stack[TREE_MAX_DEPTH];
        size_t depth, nodes;
        char *key; /* read, its value comes next */
        struct tree *top;
        struct err *e;
};

struct tree *tree_free(struct tree *t)
{
        while (t) { /* without recursion: children are put in front of the rest */
                struct tree *next = t->next;

                if (t->kids) {
                        t->last->next = next;
                        next = t->kids;
                }
                free(t->key);
                free(t->text);
                free(t);
                t = next;
        }
        return NULL;
}

static int bad(const struct reader *r, const yaml_event_t *ev, const char *why)
{
        return err_set(r->e, -EINVAL, "%s:%zu: %s", r->name, ev->start_mark.line + 1, why);
}

/* Hang @t, owned by us from now on, where the reader is. */
static int hang(struct reader *r, const yaml_event_t *ev, struct tree *t)
{
        struct tree *up = r->depth ? r->stack[r->depth - 1] : NULL;

        t->line = (unsigned) ev->start_mark.line + 1;
        t->key = TAKE(r->key);
        if (!up) {
                r->top = t;
                return 0;
        }
        if (up->last)
                up->last->next = t;
        else
                up->kids = t;
        up->last = t;
        return 0;
}

static bool wants_key(const struct reader *r)
{
        return r->depth && r->stack[r->depth - 1]->kind == TREE_MAP && !r->key;
}

static int take_key(struct reader *r, const yaml_event_t *ev, const char *text)
{
        for (const struct tree *t = r->stack[r->depth - 1]->kids; t; t = t->next)
                if (str_eq(t->key, text))
                        return bad(r, ev, "a key is given twice");
        r->key = strdup(text);
        return r->key ? 0 : err_set(r->e, -ENOMEM, "out of memory");
}

/* What would change a line of a log, of a terminal or of the YAML that we print: control characters
 * (U+0080 to U+009F among them), other line ends, and what is no character. */
static bool is_plain(const char *text)
{
        static const char *const refused[] = { "\xe2\x80\xa8", "\xe2\x80\xa9", "\xef\xbb\xbf",
                                               "\xef\xbf\xbe", "\xef\xbf\xbf" };

        for (const unsigned char *p = (const unsigned char *) text; *p; p++)
                if (*p < ' ' || *p == 0x7f || (*p == 0xc2 && p[1] < 0xa0))
                        return false;
        for (size_t i = 0; i < NELEM(refused); i++)
                if (strstr(text, refused[i]))
                        return false;
        return true;
}

static int on_scalar(struct reader *r, const yaml_event_t *ev)
{
        const char *text = (const char *) ev->data.scalar.value;
        struct tree *t;

        if (ev->data.scalar.length > TREE_MAX_TEXT)
                return bad(r, ev, "a text is longer than 4096 bytes");
        if (strlen(text) != ev->data.scalar.length)
                return bad(r, ev, "a text holds a NUL");
        if (!is_plain(text))
                return bad(r, ev, "a text holds a control character");
        if (wants_key(r))
                return take_key(r, ev, text);
        t = calloc(1, sizeof *t);
        if (!t || !(t->text = strdup(text))) {
                free(t);
                return err_set(r->e, -ENOMEM, "out of memory");
        }
        t->kind = TREE_SCALAR;
        t->quoted = ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        return hang(r, ev, t);
}

static int on_open(struct reader *r, const yaml_event_t *ev, enum tree_kind kind)
{
        struct tree *t;

        if (wants_key(r))
                return bad(r, ev, "a key is no text");
        if (r->depth == TREE_MAX_DEPTH)
                return bad(r, ev, "nested deeper than 16");
        t = calloc(1, sizeof *t);
        if (!t)
                return err_set(r->e, -ENOMEM, "out of memory");
        t->kind = kind;
        (void) hang(r, ev, t);
        r->stack[r->depth++] = t;
        return 0;
}

/* 1: the document has ended. */
static int on_event(struct reader *r, const yaml_event_t *ev)
{
        switch (ev->type) {
        case YAML_SCALAR_EVENT:
                return ++r->nodes > TREE_MAX_NODES ? bad(r, ev, "more than 65536 values")
                                                   : on_scalar(r, ev);
        case YAML_SEQUENCE_START_EVENT:
        case YAML_MAPPING_START_EVENT:
                return ++r->nodes > TREE_MAX_NODES
                               ? bad(r, ev, "more than 65536 values")
                               : on_open(r, ev,
                                         ev->type == YAML_MAPPING_START_EVENT ? TREE_MAP
                                                                              : TREE_LIST);
        case YAML_SEQUENCE_END_EVENT:
        case YAML_MAPPING_END_EVENT:
                r->depth--;
                return 0;
        case YAML_ALIAS_EVENT:
                return bad(r, ev, "aliases are not read");
        case YAML_DOCUMENT_END_EVENT:
        case YAML_STREAM_END_EVENT:
                return 1;
        case YAML_NO_EVENT:
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_START_EVENT:
        default:
                return 0;
        }
}

static int next_event(struct reader *r)
{
        yaml_event_t ev;
        int x;

        if (!yaml_parser_parse(&r->parser, &ev))
                return r->parser.error == YAML_MEMORY_ERROR
                               ? err_set(r->e, -ENOMEM, "out of memory")
                               : err_set(r->e, -EINVAL, "%s:%zu: %s", r->name,
                                         r->parser.problem_mark.line + 1,
                                         r->parser.problem ? r->parser.problem
                                                           : "not to be read as YAML");
        x = on_event(r, &ev);
        yaml_event_delete(&ev);
        return x;
}

/* "\/" and surrogate pairs are JSON's and not YAML's (1.1): the bytes that they mean, in their place.
 * Within double quotes only; *@len becomes the new length, which is no larger. */
static void json_escapes(char *s, size_t *len)
{
        size_t to = 0, n = *len;
        bool quoted = false;

        for (size_t i = 0; i < n; i++) {
                unsigned hi, lo;
                uint32_t c;
                int used = 0;

                if (s[i] == '"')
                        quoted = !quoted;
                if (!quoted || s[i] != '\\' || i + 1 == n) {
                        s[to++] = s[i];
                        continue;
                }
                if (s[i + 1] == '/') {
                        s[to++] = s[++i];
                        continue;
                }
                if (n - i >= 12 && sscanf(s + i, "\\u%4x\\u%4x%n", &hi, &lo, &used) == 2 &&
                    used == 12 && hi >> 10 == 0x36 && lo >> 10 == 0x37) {
                        c = 0x10000 + ((hi & 0x3FFU) << 10) + (lo & 0x3FFU);
                        s[to++] = (char) (0xF0 | c >> 18);
                        s[to++] = (char) (0x80 | (c >> 12 & 0x3F));
                        s[to++] = (char) (0x80 | (c >> 6 & 0x3F));
                        s[to++] = (char) (0x80 | (c & 0x3F));
                        i += 11;
                        continue;
                }
                s[to++] = s[i];
                s[to++] = s[++i];
        }
        *len = to;
}

static bool is_json(const char *text, size_t len)
{
        size_t i = 0;

        while (i < len && strchr(" \t\r\n", text[i]) && text[i])
                i++;
        return i < len && text[i] == '{';
}

int tree_parse(const char *name, const char *text, size_t len, struct tree **ret, struct err *e)
{
        struct reader r = { .name = name, .e = e };
        AUTO(free) char *copy = NULL;
        int x = 0;

        if (len > TREE_MAX_BYTES)
                return err_set(e, -EFBIG, "%s: larger than 4 MiB", name);
        copy = malloc(len + 1);
        if (!copy || !yaml_parser_initialize(&r.parser))
                return err_set(e, -ENOMEM, "out of memory");
        memcpy(copy, text, len);
        copy[len] = '\0';
        if (is_json(copy, len))
                json_escapes(copy, &len);
        yaml_parser_set_input_string(&r.parser, (const unsigned char *) copy, len);
        while (x == 0)
                x = next_event(&r);
        yaml_parser_delete(&r.parser);
        free(r.key);
        if (x > 0 && !r.top)
                x = err_set(e, -EINVAL, "%s:1: there is nothing in it", name);
        if (x < 0)
                r.top = tree_free(r.top);
        else
                *ret = r.top;
        return x < 0 ? x : 0;
}

bool tree_is_null(const struct tree *t)
{
        static const char *const words[] = { "", "~", "null", "Null", "NULL" };

        if (!t || t->kind != TREE_SCALAR || t->quoted)
                return !t;
        for (size_t i = 0; i < NELEM(words); i++)
                if (str_eq(t->text, words[i]))
                        return true;
        return false;
}

const struct tree *tree_get(const struct tree *map, const char *key)
{
        if (!map || map->kind != TREE_MAP)
                return NULL;
        for (const struct tree *t = map->kids; t; t = t->next)
                if (str_eq(t->key, key))
                        return tree_is_null(t) ? NULL : t;
        return NULL;
}
