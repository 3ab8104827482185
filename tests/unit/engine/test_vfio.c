/* test_vfio.c - IOMMU groups and what a passthrough needs, from trees that look like sysfs. */
#include "engine/gpu/vfio.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "base/fd.h"
#include "base/jsonx.h"

struct tree {
        char dir[64];
        int fd;
};

static int setup(void **state)
{
        struct tree *t = calloc(1, sizeof *t);

        if (!t)
                return -1;
        (void) snprintf(t->dir, sizeof t->dir, "/tmp/hvmm-vfio.XXXXXX");
        if (!mkdtemp(t->dir))
                return -1;
        t->fd = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        *state = t;
        return t->fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
        struct tree *t = *state;
        int r = fd_rm_rf(AT_FDCWD, t->dir);

        (void) fd_close(t->fd);
        free(t);
        return r;
}

static void make_dir(const struct tree *t, const char *path)
{
        int fd = fd_mkdir_beneath(t->fd, path, 0755);

        assert_true(fd >= 0);
        (void) fd_close(fd);
}

static void put(const struct tree *t, const char *dir, const char *name, const char *text)
{
        char path[256];
        AUTO(fd) int fd = -EBADF;

        (void) snprintf(path, sizeof path, "%s/%s", dir, name);
        fd = openat(t->fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        assert_true(fd >= 0);
        assert_int_equal(fd_write_full(fd, text, strlen(text)), 0);
}

/* As the kernel lays them out: the bus has links to where the devices are. */
static void add(const struct tree *t, const char *pci, const char *ids, const char *driver,
                int group, const char *resets)
{
        char dir[128], link[192], to[192];

        (void) snprintf(dir, sizeof dir, "devices/pci0000:00/%s", pci);
        make_dir(t, dir);
        make_dir(t, "bus/pci/devices");
        (void) snprintf(link, sizeof link, "bus/pci/devices/%s", pci);
        (void) snprintf(to, sizeof to, "../../../%s", dir);
        assert_int_equal(symlinkat(to, t->fd, link), 0);
        put(t, dir, "vendor", "0x10de\n");
        put(t, dir, "device", "0x20b2\n");
        put(t, dir, "class", ids);
        put(t, dir, "numa_node", "-1\n");
        if (resets)
                put(t, dir, "reset_method", resets);
        if (resets && *resets)
                put(t, dir, "reset", "");
        if (driver) {
                (void) snprintf(link, sizeof link, "%s/driver", dir);
                (void) snprintf(to, sizeof to, "../../../bus/pci/drivers/%s", driver);
                assert_int_equal(symlinkat(to, t->fd, link), 0);
        }
        if (group >= 0) {
                (void) snprintf(to, sizeof to, "kernel/iommu_groups/%d", group);
                make_dir(t, to);
                (void) snprintf(to, sizeof to, "../../../kernel/iommu_groups/%d", group);
                (void) snprintf(link, sizeof link, "%s/iommu_group", dir);
                assert_int_equal(symlinkat(to, t->fd, link), 0);
        }
}

#define GPU    "0x030200\n"
#define AUDIO  "0x040300\n"
#define BRIDGE "0x060400\n"
#define SWITCH "0x068000\n"

static size_t index_of(const struct vfio_inventory *v, const char *pci)
{
        for (size_t i = 0; i < v->n; i++)
                if (str_eq(v->devices[i].pci, pci))
                        return i;
        fail_msg("%s is not there", pci);
        return 0;
}

/* What it needs, joined. */
static char *needs(const struct vfio_inventory *v, const char *pci)
{
        AUTO(strv_free) char **list = NULL;
        AUTO(strbuf_done) struct strbuf b = { 0 };

        assert_int_equal(vfio_needs(v, index_of(v, pci), &list), 0);
        for (size_t i = 0; i < strv_len(list); i++)
                strbuf_fmt(&b, "[%s]", list[i]);
        return strbuf_take(&b);
}

static void test_ready(void **state)
{
        const struct tree *t = *state;
        AUTO(vfio_done) struct vfio_inventory v = { 0 };
        AUTO(free) char *text = NULL;
        char line[96];

        make_dir(t, "bus/pci/drivers/vfio-pci");
        add(t, "0000:07:00.0", GPU, "vfio-pci", 3, "flr bus\n");
        add(t, "0000:00:01.0", BRIDGE, "pcieport", 3, NULL);
        add(t, "0000:07:00.1", AUDIO, "vfio-pci", 3, "bus\n");
        assert_int_equal(vfio_read(t->fd, &v, NULL), 0);
        assert_int_equal(v.n, 3);
        assert_string_equal(v.devices[0].pci, "0000:00:01.0"); /* by address */
        assert_true(v.iommu && v.vfio_pci && !v.unsafe);
        text = needs(&v, "0000:07:00.0");
        assert_string_equal(text, "");
        vfio_summary(&v, line, sizeof line);
        assert_string_equal(line, "groups are there, 1 GPU, 1 could be handed over now");
}

static void test_needs(void **state)
{
        const struct tree *t = *state;
        static const struct {
                const char *pci;
                const char *says[3];
        } want[] = {
                { "0000:01:00.0", { "the driver nvidia]", "too: 0000:01:00.1 (snd_hda_intel)]" } },
                { "0000:02:00.0", { "group 6 holds other devices", "0000:03:00.0 (mlx5_core)" } },
                { "0000:04:00.0", { "it cannot be reset" } },
                { "0000:05:00.0", { "in no IOMMU group" } },
                { "0000:06:00.0", { "group 8 holds", "0000:08:00.0 (nvidia)" } },
        };
        AUTO(vfio_done) struct vfio_inventory v = { 0 };

        add(t, "0000:01:00.0", GPU, "nvidia", 5, "flr\n");
        add(t, "0000:01:00.1", AUDIO, "snd_hda_intel", 5, "bus\n");
        add(t, "0000:02:00.0", GPU, NULL, 6, "flr\n");
        add(t, "0000:03:00.0", "0x020000\n", "mlx5_core", 6, "flr\n");
        add(t, "0000:04:00.0", GPU, NULL, 7, "\n");
        add(t, "0000:05:00.0", GPU, NULL, -1, "flr\n");
        add(t, "0000:06:00.0", GPU, NULL, 8, "flr\n");
        add(t, "0000:08:00.0", SWITCH, "nvidia", 8, "flr\n"); /* a bridge by class alone */
        assert_int_equal(vfio_read(t->fd, &v, NULL), 0);
        for (size_t i = 0; i < NELEM(want); i++) {
                AUTO(free) char *text = needs(&v, want[i].pci);

                if (!strstr(text, "vfio-pci is not loaded"))
                        fail_msg("%s: %s", want[i].pci, text);
                for (size_t k = 0; k < NELEM(want[i].says) && want[i].says[k]; k++)
                        if (!strstr(text, want[i].says[k]))
                                fail_msg("%s: %s", want[i].pci, text);
        }
}

static void test_off(void **state)
{
        const struct tree *t = *state;
        AUTO(vfio_done) struct vfio_inventory v = { 0 };
        AUTO(free) char *text = NULL;

        add(t, "0000:01:00.0", GPU, "nvidia", -1, "flr\n");
        make_dir(t, "kernel/iommu_groups");
        make_dir(t, "module/vfio/parameters");
        put(t, "module/vfio/parameters", "enable_unsafe_noiommu_mode", "Y\n");
        assert_int_equal(vfio_read(t->fd, &v, NULL), 0);
        assert_false(v.iommu);
        text = needs(&v, "0000:01:00.0");
        assert_non_null(strstr(text, "the IOMMU is off"));
        assert_non_null(strstr(text, "enable_unsafe_noiommu_mode must be off"));
}

/* An old kernel: it can be reset, and how is not said. */
static void test_old_kernel(void **state)
{
        const struct tree *t = *state;
        AUTO(vfio_done) struct vfio_inventory v = { 0 };

        add(t, "0000:01:00.0", GPU, NULL, 1, NULL);
        put(t, "devices/pci0000:00/0000:01:00.0", "reset", "");
        assert_int_equal(vfio_read(t->fd, &v, NULL), 0);
        assert_string_equal(v.devices[0].resets, "unnamed");
}

static void test_nothing_there(void **state)
{
        const struct tree *t = *state;
        AUTO(vfio_done) struct vfio_inventory v = { 0 };
        AUTO(json_put) json_t *j = NULL;

        assert_int_equal(vfio_read(t->fd, &v, NULL), 0);
        assert_int_equal(v.n, 0);
        j = vfio_encode(&v);
        assert_int_equal(json_array_size(json_object_get(j, "devices")), 0);
        assert_true(json_is_false(json_object_get(j, "iommu")));
}

/* What is no device, leads out of the tree or is cut short. */
static void test_odd(void **state)
{
        const struct tree *t = *state;
        AUTO(vfio_done) struct vfio_inventory v = { 0 };

        make_dir(t, "bus/pci/devices/0000:01:00.0"); /* no file in it */
        make_dir(t, "bus/pci/devices/0000:01:00");
        make_dir(t, "bus/pci/devices/0000:01:00.0.1");
        make_dir(t, "bus/pci/devices/x");
        assert_int_equal(symlinkat("/etc", t->fd, "bus/pci/devices/0000:02:00.0"), 0);
        assert_int_equal(symlinkat("../../../..", t->fd, "bus/pci/devices/0000:01:00.0/driver"), 0);
        assert_int_equal(
                symlinkat("x/99999999999", t->fd, "bus/pci/devices/0000:01:00.0/iommu_group"), 0);
        assert_int_equal(vfio_read(t->fd, &v, NULL), 0);
        assert_int_equal(v.n, 1);
        assert_int_equal(v.devices[0].group, VFIO_NO_GROUP);
        assert_false(vfio_is_gpu(&v.devices[0]));
}

static void test_json(void **state)
{
        const struct tree *t = *state;
        AUTO(vfio_done) struct vfio_inventory v = { 0 };
        AUTO(json_put) json_t *j = NULL;
        json_t *d;

        add(t, "0000:01:00.0", GPU, "nvidia", 5, "flr bus\n");
        add(t, "0000:01:00.1", AUDIO, "snd_hda_intel", 5, "bus\n");
        assert_int_equal(vfio_read(t->fd, &v, NULL), 0);
        j = vfio_encode(&v);
        assert_int_equal(json_array_size(json_object_get(j, "devices")), 1);
        d = json_array_get(json_object_get(j, "devices"), 0);
        assert_string_equal(jsonx_str(d, "id"), "10de:20b2");
        assert_string_equal(jsonx_str(d, "class"), "030200");
        assert_string_equal(jsonx_str(d, "resets"), "flr bus");
        assert_int_equal(json_integer_value(json_object_get(d, "group")), 5);
        assert_int_equal(json_array_size(json_object_get(d, "members")), 1);
        assert_int_equal(json_array_size(json_object_get(d, "needs")), 3);
        assert_null(json_object_get(d, "numa_node"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_ready),         TEST(test_needs), TEST(test_off),  TEST(test_old_kernel),
                TEST(test_nothing_there), TEST(test_odd),   TEST(test_json),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
