/* terminal.c - the page of the web terminal, and the tickets by which it opens its sessions (docs/edge.md,
 * "Terminal").  tensorone-api, loop thread.
 *
 * What always holds: the page runs nothing and loads nothing but what this program serves, stands in no frame,
 * and sends nobody its address. */
#include "control/rest/terminal.h"

#include "base/str.h"
#include "control/rest/http_priv.h"
#include "control/rest/tickets.h"

static const struct {
        const char *name, *value;
} headers[] = {
        { "Content-Security-Policy",
          "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'" },
        { "X-Frame-Options", "DENY" },
        { "X-Content-Type-Options", "nosniff" },
        { "Referrer-Policy", "no-referrer" },
        { "Cross-Origin-Opener-Policy", "same-origin" },
        { "Cross-Origin-Resource-Policy", "same-origin" },
        { "Permissions-Policy", "camera=(), geolocation=(), microphone=()" },
        { "Cache-Control", "no-cache" },
};

static void reply_file(struct http_request *q, const char *name)
{
        const struct page_file *f = page_files;
        struct MHD_Response *r;

        while (f < page_files + page_n_files && !str_eq(f->name, name))
                f++;
        if (f == page_files + page_n_files) {
                http_reply_error(q, MHD_HTTP_NOT_FOUND, "there is nothing at this path");
                return;
        }
        r = MHD_create_response_from_buffer(f->len, (void *) (uintptr_t) f->data,
                                            MHD_RESPMEM_PERSISTENT);
        if (!r) {
                http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
                return;
        }
        (void) MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, f->type);
        for (size_t i = 0; i < NELEM(headers); i++)
                (void) MHD_add_response_header(r, headers[i].name, headers[i].value);
        http_reply(q, MHD_HTTP_OK, r);
}

void handle_terminal(struct http_request *q)
{
        reply_file(q, "index.html");
}

void handle_terminal_file(struct http_request *q)
{
        reply_file(q, q->arg);
}

void handle_exec_ticket(struct http_request *q)
{
        const struct cluster *c = plane_cluster(q->plane, &q->ctx.who, q->arg);
        char text[TICKET_CHARS + 1];
        struct err e = { 0 };
        int r = cluster_exec_ready(c, &e);

        if (r >= 0)
                r = tickets_issue(http_tickets(q->server), &q->ctx.who, c->id, clock_mono_us(),
                                  text, &e);
        if (r < 0)
                http_reply_error(q, http_status_of(r), "%s", e.msg);
        else
                http_reply_json(q, MHD_HTTP_CREATED,
                                json_pack("{s:s, s:i}", "ticket", text, "expiresInSeconds",
                                          (int) (TICKET_LIFE_US / US_PER_S)));
        explicit_bzero(text, sizeof text);
}
