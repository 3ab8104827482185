/* test_pages.c - src/edge/pages.c: words for the map, and lines that HAProxy can read. */
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "edge/pages.h"

static void test_words(void **state)
{
        static const struct {
                enum edge_page page;
                uint32_t percent;
                const char *word;
        } t[] = {
                { EDGE_PAGE_NONE, 0, "" },
                { EDGE_PAGE_UNKNOWN, 0, "" },
                { EDGE_PAGE_STOPPED, 7, "=stopped" },
                { EDGE_PAGE_STOPPING, 0, "=stopping" },
                { EDGE_PAGE_STARTING, 7, "=starting" },
                { EDGE_PAGE_PULLING, 0, "=pulling=0" },
                { EDGE_PAGE_PULLING, 43, "=pulling=43" },
                { EDGE_PAGE_PULLING, 4000000000U, "=pulling=100" },
                { EDGE_PAGE_RESTARTING, 0, "=restarting" },
                { EDGE_PAGE_NOT_LISTENING, 0, "=notListening" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                char word[EDGE_PAGE_WORD_MAX] = "?";

                edge_page_word(word, t[i].page, t[i].percent);
                if (!str_eq(word, t[i].word) || strpbrk(word, " \t\n:") || strlen(word) + 1 > 24)
                        fail_msg("row %zu: %s", i, word);
        }
}

/* What HAProxy's log-format would take for a value of its own. */
static void check_percents(const char *text)
{
        for (const char *s = strchr(text, '%'); s; s = strchr(s, '%')) {
                const char *value = str_after(s, "%[var(txn.route),field(3,=)]");

                if (!value && s[1] != '%')
                        fail_msg("a %% that is none: %.40s", s);
                s = value ? value : s + 2;
        }
}

static void check_line(const char *line, size_t *pages, size_t *html)
{
        const char *quote = strchr(line, '\''), *end = quote ? strchr(quote + 1, '\'') : NULL;
        char *text;

        assert_non_null(end);
        text = strndup(quote + 1, (size_t) (end - quote) - 1);
        assert_non_null(text);
        check_percents(text);
        assert_non_null(strstr(end, " hdr Cache-Control no-store"));
        if (strstr(line, "text/html")) {
                assert_non_null(strstr(
                        end, "Content-Security-Policy \"default-src 'none'; style-src 'sha256-"));
                /* nothing that is elsewhere, nothing that runs */
                assert_null(strstr(text, "http:"));
                assert_null(strstr(text, "https:"));
                assert_null(strstr(text, "src="));
                assert_null(strstr(text, "<script"));
                assert_null(strstr(text, " style="));
                assert_true(strlen(text) < 1500);
                (*html)++;
        } else {
                assert_non_null(str_after(text, "{\"error\":\""));
        }
        /* who is to come back is told so in each of its ways */
        assert_int_equal(strstr(end, " hdr Retry-After 2") != NULL,
                         strstr(text, "renews itself") || strstr(text, "\"retryAfterSeconds\":2"));
        (*pages)++;
        free(text);
}

static void check_lines(struct strbuf *b, size_t want)
{
        size_t pages = 0, html = 0;
        char *save = NULL;

        assert_false(b->failed);
        for (char *line = strtok_r(b->s, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
                check_line(line, &pages, &html);
        assert_int_equal(pages, want);
        assert_true(html == want / 2 || html == 0 || html == want);
        strbuf_done(b);
}

static void test_lines(void **state)
{
        struct strbuf b = { 0 };

        (void) state;
        edge_pages_put(&b);
        /* whoever is in no map comes last, and needs nothing to be so */
        assert_non_null(strstr(
                b.s,
                "\"state\":\"unknown\"}' hdr Cache-Control no-store hdr Vary Accept hdr X-Content-Type-Options nosniff\n"));
        check_lines(&b, 12);
        edge_pages_put_errors(&b, true);
        check_lines(&b, 2);
        edge_pages_put_errors(&b, false);
        check_lines(&b, 2);
}

/* The one style that the policy lets through is the one that is there. */
static void test_style(void **state)
{
        struct strbuf b = { 0 };
        unsigned char hash[EVP_MAX_MD_SIZE], text[2 * EVP_MAX_MD_SIZE];
        const char *from, *to, *said;
        unsigned n = 0;

        (void) state;
        edge_pages_put(&b);
        from = strstr(b.s, "<style>") + strlen("<style>");
        to = strstr(from, "</style>");
        assert_non_null(to);
        assert_int_equal(EVP_Digest(from, (size_t) (to - from), hash, &n, EVP_sha256(), NULL), 1);
        (void) EVP_EncodeBlock(text, hash, (int) n);
        said = strstr(to, "'sha256-");
        assert_non_null(said);
        assert_non_null(str_after(said + strlen("'sha256-"), (const char *) text));
        strbuf_done(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_words),
                cmocka_unit_test(test_lines),
                cmocka_unit_test(test_style),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
