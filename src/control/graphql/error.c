/* error.c - error objects of an answer.  API program, loop thread. */
#include <errno.h>

#include "control/graphql/exec.h"
#include "model/limits.h"

const char *gql_code_of(int r)
{
        static const struct {
                int err;
                const char *code;
        } codes[] = {
                { -EINVAL, "BAD_USER_INPUT" },  { -ERANGE, "BAD_USER_INPUT" },
                { -E2BIG, "BAD_USER_INPUT" },   { -ENOENT, "NOT_FOUND" },
                { -EEXIST, "CONFLICT" },        { -ESTALE, "CONFLICT" },
                { -EACCES, "UNAUTHENTICATED" }, { -EPERM, "FORBIDDEN" },
                { -EDQUOT, "QUOTA_EXCEEDED" },  { -ENOSPC, "NO_CAPACITY" },
                { -EPROTO, "BAD_STATE" },       { -EBUSY, "BAD_STATE" },
                { -EAGAIN, "UNAVAILABLE" },     { -ETIMEDOUT, "UNAVAILABLE" },
                { -ENOTCONN, "UNAVAILABLE" },   { -EOPNOTSUPP, "NOT_IMPLEMENTED" },
        };

        for (size_t i = 0; i < NELEM(codes); i++)
                if (codes[i].err == r)
                        return codes[i].code;
        return "INTERNAL_SERVER_ERROR";
}

/* The chain runs inwards, the path outwards: written by recursion, as deep as the query. */
static void write_path(struct strbuf *out, const struct gql_call *c)
{
        if (c->parent) {
                write_path(out, c->parent);
                out_char(out, ',');
        }
        out_char(out, '"');
        out_raw(out, c->q->key + 2, c->q->key_len - 4);
        out_char(out, '"');
        if (c->in_list && c->index >= 0) {
                out_char(out, ',');
                out_int(out, c->index);
        }
}

void error_write(struct strbuf *out, const char *code, const char *msg, uint32_t line,
                 uint32_t column, const struct gql_call *path)
{
        OUT_LITERAL(out, "{\"message\":");
        out_str(out, msg, strlen(msg));
        if (line > 0) {
                OUT_LITERAL(out, ",\"locations\":[{\"line\":");
                out_int(out, line);
                OUT_LITERAL(out, ",\"column\":");
                out_int(out, column);
                OUT_LITERAL(out, "}]");
        }
        if (path) {
                OUT_LITERAL(out, ",\"path\":[");
                write_path(out, path);
                out_char(out, ']');
        }
        OUT_LITERAL(out, ",\"extensions\":{\"code\":");
        out_str(out, code, strlen(code));
        OUT_LITERAL(out, "}}");
}

void error_add(struct gql_request *r, const struct gql_call *c, const char *code, const char *msg)
{
        uint32_t line, column;

        if (strcmp(code, "BAD_USER_INPUT") == 0)
                r->n_bad_input++;
        if (++r->n_errors > LIMIT_QUERY_ERRORS)
                return; /* one broken field of many objects: the first hundred say it */
        if (r->errors.len > 0)
                out_char(&r->errors, ',');
        lex_position(r->query->doc.src, r->query->doc.len, c->q->off, &line, &column);
        error_write(&r->errors, code, msg, line, column, c);
}

void gql_error_body(struct strbuf *out, const char *code, const char *message)
{
        OUT_LITERAL(out, "{\"errors\":[");
        error_write(out, code, message, 0, 0, NULL);
        OUT_LITERAL(out, "]}");
        if (out_room(out, 1))
                out->s[out->len] = '\0';
}
