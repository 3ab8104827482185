/* pages.c - see pages.h.  Engine process, at start; edge_page_word() also later.
 *
 * The texts go through HAProxy's log-format, where "%" begins a value: a literal one is doubled, and "{}" stands for
 * the percentage, the second word in the map.  No apostrophe may stand in them: they are quoted by these. */
#include "edge/pages.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static const struct page {
        const char *word; /* in the map, and `state` in JSON */
        int status;
        unsigned
                retry_s; /* come back after that time: Retry-After, and the page renews itself; 0: no use */
        unsigned look_s; /* the page alone does, as whoever has it open may be about to start it */
        const char *title, *text;
        const char *error; /* the same in JSON, as one sentence */
        bool percent;
} pages[EDGE_PAGE_COUNT] = {
        [EDGE_PAGE_UNKNOWN] = { "unknown", 404, 0, 30, "Nothing here",
                                "No cluster has this name and port.",
                                "no cluster has this name and port", false },
        [EDGE_PAGE_STOPPED] = { "stopped", 503, 0, 30, "Stopped",
                                "This cluster is stopped. Its owner can start it again.",
                                "the cluster is stopped", false },
        [EDGE_PAGE_STOPPING] = { "stopping", 503, 0, 5, "Stopping",
                                 "This cluster is being stopped.", "the cluster is being stopped",
                                 false },
        [EDGE_PAGE_STARTING] = { "starting", 503, 2, 0, "Starting",
                                 "This cluster is being started.",
                                 "the cluster is being started; try again in a moment", false },
        [EDGE_PAGE_PULLING] = { "pulling", 503, 2, 0, "Starting",
                                "This cluster is being started: its image is on its way, {} %.",
                                "the cluster is being started: its image is on its way, {} %; try again in a moment",
                                true },
        [EDGE_PAGE_RESTARTING] = { "restarting", 503, 2, 0, "Starting again",
                                   "What ran in this cluster has ended, and is being started again.",
                                   "what ran in the cluster has ended, and is being started again; try again in a moment",
                                   false },
        [EDGE_PAGE_NOT_LISTENING] = { "notListening", 503, 2, 0, "Not listening yet",
                                      "The cluster runs, and nothing in it listens on this port.",
                                      "nothing listens on this port of the cluster yet; try again in a moment",
                                      false },
        [EDGE_PAGE_NO_HTTP] = { "noHttp", 502, 0, 0, "No HTTP here",
                                "What listens on this port of the cluster does not speak HTTP, or ended before it answered.",
                                "what listens on this port does not speak HTTP, or ended before it answered",
                                false },
        [EDGE_PAGE_ADDRESS_BUSY] = { "addressBusy", 429, 10, 0, "Too many requests",
                                     "Your address asks for more than it may, or has too much open at once.",
                                     "too many requests from this address, or too many connections; try again in 10 s, and not as many at once",
                                     false },
        [EDGE_PAGE_CLUSTER_BUSY] = { "clusterBusy", 429, 10, 0, "Too many visitors",
                                     "This cluster is asked for more than it may be.",
                                     "this cluster is asked for more than it may be; try again in 10 s",
                                     false },
        [EDGE_PAGE_PRIVATE] = { "private", 401, 0, 0, "Private",
                                "This port is private. Open it by a link, which tensoronecli open prints. A link works for five minutes, and then in the browser that has followed it for twelve hours.",
                                "this port is private: send an API key of its account as Authorization: Bearer KEY, or follow a link of tensoronecli open",
                                false },
        [EDGE_PAGE_NOT_ALLOWED] = { "notAllowed", 403, 0, 0, "Not from your address",
                                    "This cluster answers some addresses alone, and yours is none of them.",
                                    "this cluster does not answer your address", false },
        [EDGE_PAGE_OTHER_PAGE] = { "otherPage", 403, 0, 0, "Not from there",
                                   "A page of another name may not use this private port.",
                                   "a page of another name may not use this private port", false },
};

#define STYLE                                                                                                   \
        "html{color-scheme:light dark}body{margin:0;min-height:100vh;display:grid;place-items:center;"               \
        "background:Canvas;color:CanvasText;font:1rem/1.5 system-ui,sans-serif}"                                \
        "main{box-sizing:border-box;width:30rem;max-width:100vw;padding:2rem;border-left:.25rem solid #4a7dff}" \
        "h1{margin:0;font-size:1.75rem;font-weight:600}p{margin:.5rem 0 0}"                                     \
        "progress{display:block;width:16rem;max-width:80vw;height:.5rem;margin:1rem 0 0;accent-color:#4a7dff}"  \
        "small{display:block;margin:1rem 0 0;opacity:.6}"

void edge_page_word(char ret[static EDGE_PAGE_WORD_MAX], enum edge_page p, uint32_t percent)
{
        const char *word = p == EDGE_PAGE_NONE || p == EDGE_PAGE_UNKNOWN ? NULL : pages[p].word;

        if (!word)
                ret[0] = '\0';
        else if (pages[p].percent)
                (void) snprintf(ret, EDGE_PAGE_WORD_MAX, "=%s=%u", word,
                                percent > 100 ? 100 : percent);
        else
                (void) snprintf(ret, EDGE_PAGE_WORD_MAX, "=%s", word);
}

static void put_text(struct strbuf *b, const char *s)
{
        for (; *s; s++) {
                assert(*s != '\'');
                if (s[0] == '{' && s[1] == '}') {
                        strbuf_str(b, "%[var(txn.route),field(3,=)]");
                        s++;
                } else if (*s == '%') {
                        strbuf_str(b, "%%");
                } else {
                        strbuf_char(b, *s);
                }
        }
}

static void put_html(struct strbuf *b, const struct page *p)
{
        const unsigned again = p->retry_s ? p->retry_s : p->look_s;

        strbuf_str(b, "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">"
                      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
        if (again)
                strbuf_fmt(b, "<meta http-equiv=\"refresh\" content=\"%u\">", again);
        strbuf_fmt(b, "<title>%s</title><style>" STYLE "</style></head><body><main><h1>%s</h1><p>",
                   p->title, p->title);
        put_text(b, p->text);
        strbuf_str(b, "</p>");
        if (p->percent) {
                strbuf_str(b, "<progress max=\"100\" value=\"");
                put_text(b, "{}");
                strbuf_str(b, "\"></progress>");
        }
        if (p->retry_s)
                strbuf_str(b, "<small>This page renews itself until the cluster answers.</small>");
        strbuf_str(b, "</main></body></html>");
}

static void put_json(struct strbuf *b, const struct page *p)
{
        strbuf_str(b, "{\"error\":\"");
        put_text(b, p->error);
        strbuf_fmt(b, "\",\"state\":\"%s\"", p->word);
        if (p->percent) {
                strbuf_str(b, ",\"percent\":");
                put_text(b, "{}");
        }
        if (p->retry_s)
                strbuf_fmt(b, ",\"retryAfterSeconds\":%u", p->retry_s);
        strbuf_char(b, '}');
}

/* Nothing is loaded, run, sent or framed in, and of styles this one alone is obeyed. */
static void put_policy(struct strbuf *b)
{
        unsigned char hash[EVP_MAX_MD_SIZE], text[2 * EVP_MAX_MD_SIZE];
        unsigned n = 0;

        if (EVP_Digest(STYLE, sizeof STYLE - 1, hash, &n, EVP_sha256(), NULL) != 1) {
                b->failed = true;
                return;
        }
        (void) EVP_EncodeBlock(text, hash, (int) n);
        strbuf_fmt(
                b,
                " hdr Content-Security-Policy \"default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'\""
                " hdr Referrer-Policy no-referrer",
                (const char *) text);
}

/* What follows the status, in both kinds of lines. */
static void put_answer(struct strbuf *b, const struct page *p, bool html)
{
        strbuf_str(b, html ? " content-type \"text/html; charset=utf-8\" lf-string '"
                           : " content-type application/json lf-string '");
        if (html)
                put_html(b, p);
        else
                put_json(b, p);
        strbuf_str(
                b,
                "' hdr Cache-Control no-store hdr Vary Accept hdr X-Content-Type-Options nosniff");
        if (p->retry_s)
                strbuf_fmt(b, " hdr Retry-After %u", p->retry_s);
        if (html)
                put_policy(b);
}

static void put_return(struct strbuf *b, const struct page *p, bool html)
{
        const bool any = p == &pages[EDGE_PAGE_UNKNOWN];

        strbuf_fmt(b, "    http-request return status %d", p->status);
        put_answer(b, p, html);
        if (!any)
                strbuf_fmt(b, " if { var(txn.route),field(2,=) -m str %s }", p->word);
        if (html)
                strbuf_str(b, any ? " if wants_page" : " wants_page");
        strbuf_char(b, '\n');
}

void edge_pages_put(struct strbuf *b)
{
        for (enum edge_page p = EDGE_PAGE_STOPPED; p < EDGE_PAGE_NOT_LISTENING; p++) {
                put_return(b, &pages[p], true);
                put_return(b, &pages[p], false);
        }
        /* the last: whatever else may stand there, or nothing */
        put_return(b, &pages[EDGE_PAGE_UNKNOWN], true);
        put_return(b, &pages[EDGE_PAGE_UNKNOWN], false);
}

void edge_pages_put_refusal(struct strbuf *b, enum edge_page p, const char *acl)
{
        for (int html = 1; html >= 0; html--) {
                strbuf_fmt(b, "    http-request return status %d", pages[p].status);
                put_answer(b, &pages[p], html);
                if (pages[p].status == 401)
                        strbuf_str(b, " hdr WWW-Authenticate \"Bearer realm=\\\"tensorone\\\"\"");
                strbuf_fmt(b, " if %s%s\n", acl, html ? " wants_page" : "");
        }
}

void edge_pages_put_errors(struct strbuf *b, bool html)
{
        for (enum edge_page p = EDGE_PAGE_NOT_LISTENING; p <= EDGE_PAGE_NO_HTTP; p++) {
                strbuf_fmt(b, "    http-error status %d", pages[p].status);
                put_answer(b, &pages[p], html);
                strbuf_char(b, '\n');
        }
}
