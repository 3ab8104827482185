/* ready.c - see ready.h.  In the control plane when a cluster is asked for, in the engine with each plan. */
#include "model/ready.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/str.h"
#include "model/limits.h"
#include "model/plan.h"

/* What may stand in a request's first line: no blank, no control character, nothing beyond ASCII, no fragment. */
static bool is_path(const char *s)
{
        if (*s != '/')
                return false;
        for (; *s; s++)
                if (*s <= ' ' || *s >= 127 || strchr("#\"<>\\^`{|}", *s))
                        return false;
        return true;
}

/* ":PORT" at the front of *@s, which then begins behind it; 0: there is none. */
static int take_port(const char **s, uint32_t *ret)
{
        const size_t digits = **s == ':' ? strspn(*s + 1, "0123456789") : 0;
        char number[8];
        uint64_t n = 0;

        *ret = 0;
        if (**s != ':')
                return 0;
        if (digits == 0 || digits >= sizeof number)
                return -EINVAL;
        memcpy(number, *s + 1, digits);
        number[digits] = '\0';
        if (str_u64(number, 1, 65535, &n) < 0)
                return -EINVAL;
        *s += 1 + digits;
        *ret = (uint32_t) n;
        return 0;
}

/* The HTTP port that is meant: @wanted, or the first one for 0.  0: it is not declared. */
static uint32_t find_port(const struct plan_port *port, int n, uint32_t wanted)
{
        for (int i = 0; i < n; i++)
                if (port[i].type == PORT_HTTP && (!wanted || port[i].private_port == wanted))
                        return port[i].private_port;
        return 0;
}

int ready_path_parse(const char *s, const char *ports, struct ready_path *ret, struct err *e)
{
        struct ready_path is = { .port = 0 };
        struct plan_port port[LIMIT_PORTS];
        uint32_t wanted;
        int n;

        if (str_empty(s) || str_eq(s, READY_NONE)) {
                *ret = is;
                return 0;
        }
        if (strlen(s) > LIMIT_READY_PATH_BYTES)
                return err_set(e, -E2BIG, "readinessPath: %zu bytes, at most %u are allowed",
                               strlen(s), LIMIT_READY_PATH_BYTES);
        is.path = s;
        if (take_port(&is.path, &wanted) < 0 || !is_path(is.path))
                return err_set(
                        e, -EINVAL,
                        "readinessPath: '%.64s' is neither a path such as /health nor one with its port such as :8000/health; other characters than those of a URL are written as %%20 there",
                        s);
        n = plan_ports(ports, port, NELEM(port), e);
        if (n < 0)
                return n;
        is.port = find_port(port, n, wanted);
        if (!is.port && wanted)
                return err_set(
                        e, -EINVAL,
                        "readinessPath: %u is no HTTP port of the cluster; add %u/http to ports, or name another one",
                        wanted, wanted);
        if (!is.port)
                return err_set(
                        e, -EINVAL,
                        "readinessPath: the cluster has no HTTP port that could be asked; add one such as 8000/http to ports");
        *ret = is;
        return 0;
}

bool ready_answer(const char answer[static READY_ANSWER_BYTES])
{
        static const char shape[] = "HTTP/1.0 000"; /* a digit for each 0 */

        static_assert(sizeof shape == READY_ANSWER_BYTES + 1, "of that length");
        for (size_t i = 0; i < READY_ANSWER_BYTES; i++) {
                const bool digit = answer[i] >= '0' && answer[i] <= '9';

                if (shape[i] == '0' ? !digit : answer[i] != shape[i])
                        return false;
        }
        return answer[9] == '2' || answer[9] == '3';
}
