/* text.c - see text.h.  Any program; pure but for the buffers' memory. */
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

/* Edit distance of two short words, neighbours swapped counting as one; 99 when too long. */
static unsigned distance(const char *a, const char *b)
{
        enum { TOP = 32 };
        unsigned d[TOP + 1][TOP + 1];
        size_t n = strlen(a), m = strlen(b);

        if (n > TOP || m > TOP)
                return 99;
        for (size_t i = 0; i <= n; i++)
                d[i][0] = (unsigned) i;
        for (size_t j = 0; j <= m; j++)
                d[0][j] = (unsigned) j;
        for (size_t i = 1; i <= n; i++) {
                for (size_t j = 1; j <= m; j++) {
                        unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

                        if (d[i - 1][j] + 1 < best)
                                best = d[i - 1][j] + 1;
                        if (d[i][j - 1] + 1 < best)
                                best = d[i][j - 1] + 1;
                        if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                            d[i - 2][j - 2] + 1 < best)
                                best = d[i - 2][j - 2] + 1;
                        d[i][j] = best;
                }
        }
        return d[n][m];
}

const char *text_nearest(const char *word, const char *const *words, size_t n)
{
        const char *best = NULL;
        unsigned best_d = 99;

        for (size_t i = 0; i < n; i++) {
                unsigned d = distance(word, words[i]);
                size_t len = strlen(words[i]);

                /* a third of the letters wrong is still a slip; a beginning is an abbreviation */
                if (str_after(words[i], word) && strlen(word) >= 2)
                        d = d < 1 ? d : 1;
                if (d < best_d && d * 3 <= len + 1) {
                        best_d = d;
                        best = words[i];
                }
        }
        return best;
}

void text_roff(const char *text, struct strbuf *b)
{
        bool start = true;

        for (; *text; text++) {
                if (start && (*text == '.' || *text == '\''))
                        strbuf_str(b, "\\&");
                start = *text == '\n';
                switch (*text) {
                case '\\':
                        strbuf_str(b, "\\e");
                        break;
                case '-':
                        strbuf_str(b, "\\-");
                        break;
                case '"':
                        strbuf_str(b, "\\(dq");
                        break;
                case '~':
                        strbuf_str(b, "\\(ti");
                        break;
                default:
                        strbuf_char(b, *text);
                }
        }
}

/* Running text: lines broken between words below 79 columns, none of which begins with one of
 * roff's control characters. */
static void filled(const char *text, struct strbuf *b)
{
        AUTO(strbuf_done) struct strbuf line = { 0 };

        while (*text) {
                AUTO(strbuf_done) struct strbuf word = { 0 };
                size_t n = strcspn(text, " ");
                AUTO(free) char *plain = strndup(text, n);

                text_roff(plain ? plain : "", &word);
                if (line.len > 0 && line.len + 1 + word.len > 78) {
                        strbuf_fmt(b, "%s\n", line.s);
                        strbuf_drop_front(&line, line.len);
                }
                if (word.s)
                        strbuf_fmt(&line, "%s%s", line.len > 0 ? " " : "", word.s);
                text += n;
                text += strspn(text, " ");
        }
        if (line.len > 0)
                strbuf_fmt(b, "%s\n", line.s);
}

void text_sentences(const char *text, struct strbuf *b)
{
        AUTO(free) char *copy = strdup(text);
        char *from = copy, *p;

        if (!copy) {
                b->failed = true;
                return;
        }
        if (*from >= 'a' && *from <= 'z')
                *from = (char) (*from - 'a' + 'A');
        while ((p = strstr(from, ". ")) != NULL) {
                p[1] = '\0';
                filled(from, b);
                from = p + 2;
        }
        filled(from, b);
}

void text_quoted(const char *text, struct strbuf *b)
{
        strbuf_str(b, " \"");
        text_roff(text, b);
        strbuf_char(b, '"');
}
