/* cmd_logs.c - `logs`.  Runs in tensoronecli; bytes go to stdout as the process wrote them. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/clusters.h"

static int on_chunk(void *arg, const char *data, size_t len, struct err *e)
{
        int r = fd_write_full(STDOUT_FILENO, data, len);

        (void) arg;
        return r < 0 ? err_errno(e, r, "standard output") : 0;
}

int cmd_logs(struct cli *c, struct err *e)
{
        const struct opt_value *o = c->opt;
        AUTO(strbuf_done) struct strbuf path = { 0 };
        AUTO(free) char *id = NULL;
        struct api_request q = { .method = "GET", .chunk = on_chunk };
        char since[32];
        int r = 0;

        if (o[OPT_SINCE].given)
                r = time_text("since", o[OPT_SINCE].s, false, since, e);
        if (r >= 0)
                r = cluster_find(c->api, c->operands[0], &id, e);
        if (r < 0)
                return r;
        strbuf_fmt(&path, "/v1/clusters/%s/logs", id);
        if (o[OPT_FOLLOW].b)
                api_path_add(&path, "follow", "1");
        if (o[OPT_TAIL].given)
                api_path_add(&path, "tail", o[OPT_TAIL].s);
        if (o[OPT_SINCE].given)
                api_path_add(&path, "since", since);
        if (o[OPT_TIMESTAMPS].b)
                api_path_add(&path, "timestamps", "1");
        if (o[OPT_STREAM].given)
                api_path_add(&path, "stream", o[OPT_STREAM].s);
        if (path.failed)
                return err_set(e, -ENOMEM, "out of memory");
        q.path = path.s;
        return api_request(c->api, &q, e);
}
