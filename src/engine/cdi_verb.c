/* cdi_verb.c - see cdi_verb.h.  hypervisor-vmm on the command line; no engine runs. */
#include "engine/cdi_verb.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/gpu/cdi.h"
#include "engine/gpu/cdi_make.h"
#include "engine/gpu/driver.h"
#include "engine/instance.h"

#define VERSION_FILE "proc/driver/nvidia/version"

static int check_conf(const char *config, struct err *e)
{
        AUTO(instance_close) struct instance *conf = NULL;
        int r = instance_read_conf(config, &conf, e);

        if (r < 0)
                return r;
        if (str_after(conf->conf.gpu_driver, "simulated:"))
                return err_set(
                        e, -ENODEV,
                        "cdi: [engine] gpu_driver = %s: simulated GPUs are for clusters of this program alone",
                        conf->conf.gpu_driver);
        if (str_eq(conf->conf.gpu_driver, "none"))
                return err_set(e, -ENODEV, "cdi: [engine] gpu_driver = none");
        return 0;
}

static int open_driver(const char *root, struct gpu_driver *d, struct err *e)
{
        AUTO(fd) int fd = -EBADF;
        char buf[4096];
        ssize_t n;

        d->kind = GD_NVIDIA;
        d->root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (d->root_fd < 0)
                return err_errno(e, -errno, "cdi: %s", root);
        fd = fd_open_in_root(d->root_fd, VERSION_FILE, O_RDONLY, 0);
        n = fd < 0 ? fd : fd_read_full(fd, buf, sizeof buf - 1);
        if (n < 0)
                return err_errno(e, (int) n, "cdi: there is no NVIDIA driver: /" VERSION_FILE);
        buf[n] = '\0';
        d->version = gpu_driver_version_of(buf);
        return 0;
}

int cdi_generate(const char *config, const char *root, struct strbuf *out, struct err *e)
{
        struct gpu_driver d = { .root_fd = -EBADF };
        struct cdi_spec s = { .version = NULL };
        int r = root ? 0 : check_conf(config, e);

        if (r >= 0)
                r = open_driver(root ? root : "/", &d, e);
        if (r >= 0) {
                r = cdi_make_spec(&d, &s, e);
                if (r < 0)
                        r = err_wrap(e, r, "cdi");
        }
        if (r >= 0)
                r = cdi_print(&s, out, e);
        cdi_spec_done(&s);
        (void) fd_close(d.root_fd);
        free(d.version);
        return r;
}
