/* probe.c - see net.h: what this kernel can do for clusters' networks.  `doctor`.  Always holds: what is tried
 * is tried by a child in a network namespace of its own, and ends with it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <nftables/libnftables.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/net/net_priv.h"

typedef int try_fn(struct err *e);

static int in_child(try_fn *fn, struct err *e)
{
        AUTO(fd) int in = -EBADF;
        struct err why = { 0 };
        int pipes[2], status;
        ssize_t n;
        pid_t pid;

        if (pipe2(pipes, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        in = pipes[0];
        pid = fork();
        if (pid == 0) {
                int r = unshare(CLONE_NEWNET) < 0 ? err_errno(&why, -errno, "network namespace")
                                                  : fn(&why);

                _exit(r < 0 && write(pipes[1], &why, sizeof why) != sizeof why ? 2 : r < 0);
        }
        (void) close(pipes[1]);
        if (pid < 0)
                return err_errno(e, -errno, "fork");
        while ((n = read(in, &why, sizeof why)) < 0 && errno == EINTR)
                ;
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return err_errno(e, -errno, "wait");
        if (status == 0)
                return 0;
        return n == sizeof why && why.code < 0 ? err_copy(e, &why)
                                               : err_set(e, -EIO, "it could not be tried");
}

static int try_bandwidth(struct err *e)
{
        AUTO(nl_sock_close) struct nl_sock s = { 0 };
        struct nl_batch b;
        uint32_t lo = 0;
        int r = nl_sock_open(&s, NETLINK_ROUTE, e);

        if (r >= 0 && (r = rtnl_index(&s, "lo", &lo)) < 0)
                return err_errno(e, r, "link lo");
        if (r < 0)
                return r;
        nl_batch_init(&b);
        rtnl_rate_add(&b, lo, 1U << 20);
        return nl_commit(&s, &b, e);
}

static int try_connections(struct err *e)
{
        static const char text[] =
                "table inet probe {\n set s { type ipv4_addr; size 16; flags dynamic; }\n"
                " chain c {\n add @s { ip saddr ct count over 1 } drop\n }\n}\n";
        struct nft_ctx *ctx = nft_ctx_new(NFT_CTX_DEFAULT);
        int r = 0;

        if (!ctx || nft_ctx_buffer_error(ctx) != 0 || nft_ctx_buffer_output(ctx) != 0)
                r = err_set(e, -ENOMEM, "out of memory");
        else if (nft_run_cmd_from_buffer(ctx, text) != 0)
                r = err_set(e, -EOPNOTSUPP, "not in this kernel (CONFIG_NFT_CONNLIMIT)");
        if (ctx)
                nft_ctx_free(ctx);
        return r;
}

int net_probe_bandwidth(struct err *e)
{
        return in_child(try_bandwidth, e);
}

int net_probe_connections(struct err *e)
{
        return in_child(try_connections, e);
}
