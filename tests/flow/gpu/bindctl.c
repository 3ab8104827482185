/* bindctl.c - engine/gpu/bind.c on a driver's tree made by a test: root, real mounts.
 *
 *   bindctl ROOT VERSION CAPS FABRIC [TIMES]    list of struct gpu, as JSON, on stdin
 *
 * Prints what a cluster would get as one JSON object; with TIMES, microseconds of one binding. */
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/gpu/bind.h"

static json_t *devices(const struct gpu_binding *b)
{
        json_t *list = json_array();

        for (size_t i = 0; i < b->n_devices; i++) {
                const struct gpu_device *d = &b->devices[i];
                struct stat st;

                (void) fstat(d->fd, &st);
                (void) json_array_append_new(
                        list, json_pack("[s, i, i, s, i]", d->name, (int) major(st.st_rdev),
                                        (int) minor(st.st_rdev), d->access, (int) d->mode));
        }
        return list;
}

static json_t *mounts(const struct gpu_binding *b)
{
        json_t *o = json_object();

        for (size_t i = 0; i < b->n_mounts; i++) {
                struct statvfs fs;
                struct stat st;
                bool safe = fstatvfs(b->mounts[i].mnt, &fs) == 0 && fs.f_flag & ST_RDONLY &&
                            fs.f_flag & ST_NOSUID && fs.f_flag & ST_NODEV;

                (void) fstat(b->mounts[i].mnt, &st);
                (void) json_object_set_new(o, b->mounts[i].target,
                                           json_string(!safe                 ? "unsafe"
                                                       : S_ISDIR(st.st_mode) ? "dir"
                                                                             : "file"));
        }
        return o;
}

static void walk(int dir, const char *path, json_t *o)
{
        DIR *d = fdopendir(dir);

        for (const struct dirent *de; d && (de = readdir(d));) {
                AUTO(free) char *sub = str_fmt("%s/%s", path, de->d_name), *text = NULL;

                if (de->d_name[0] == '.')
                        continue;
                if (de->d_type == DT_DIR)
                        walk(openat(dirfd(d), de->d_name, O_RDONLY | O_DIRECTORY), sub, o);
                else if (fd_read_file(dirfd(d), de->d_name, 65536, &text, NULL) >= 0)
                        (void) json_object_set_new(o, sub + 1, json_string(text));
        }
        if (d)
                (void) closedir(d);
}

static json_t *proc(const struct gpu_binding *b)
{
        json_t *o = json_object();

        walk(openat(b->proc_mnt, ".", O_RDONLY | O_DIRECTORY), "", o);
        if (mkdirat(b->proc_mnt, "new", 0755) == 0)
                (void) json_object_set_new(o, "new", json_string("can be written"));
        return o;
}

static json_t *answer(const struct gpu_binding *b)
{
        json_t *links = json_object(), *libs = json_array(), *env = json_array();

        for (size_t i = 0; i < b->n_symlinks; i++)
                (void) json_object_set_new(links, b->symlinks[i].link,
                                           json_string(b->symlinks[i].target));
        for (size_t i = 0; i < b->n_libraries; i++)
                (void) json_array_append_new(libs, json_pack("[s, s, b]", b->libraries[i].name,
                                                             b->libraries[i].path,
                                                             b->libraries[i].is_32));
        for (char **v = b->env; v && *v; v++)
                (void) json_array_append_new(env, json_string(*v));
        return json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "r", 0, "devices", devices(b),
                         "mounts", mounts(b), "links", links, "libraries", libs, "env", env, "proc",
                         proc(b));
}

static int read_gpus(struct gpu *gpus, size_t max)
{
        json_t *list = json_loadf(stdin, 0, NULL);
        size_t n = json_array_size(list);

        for (size_t i = 0; i < n && i < max; i++) {
                struct err e;

                if (gpu_decode(json_array_get(list, i), &gpus[i], &e) < 0) {
                        (void) fprintf(stderr, "%s\n", e.msg);
                        exit(1);
                }
        }
        json_decref(list);
        return (int) n;
}

int main(int argc, char **argv)
{
        struct gpu_driver d = { .kind = GD_SIMULATED };
        struct gpu gpus[GPU_MAX] = { 0 };
        struct gpu_binding b;
        struct err e = { 0 };
        int n = read_gpus(gpus, GPU_MAX), times = argc > 5 ? atoi(argv[5]) : 0, r;
        uint64_t start, took = 0;
        json_t *out;

        log_init("bindctl", LOG_LVL_INFO);
        if (argc < 5)
                return 2;
        d.root_fd = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
        d.version = *argv[2] ? argv[2] : NULL;
        gpu_binding_init(&b);
        if (times)
                gpu_bind_prepare(&d);
        for (int i = 0; i < times; i++) {
                start = clock_mono_us();
                if (gpu_bind(&d, gpus, (size_t) n, argv[3], false, &b, &e) < 0 ||
                    gpu_bind_proc(&d, gpus, (size_t) n, &b, &e) < 0)
                        return 1;
                took += clock_mono_us() - start;
                gpu_binding_done(&b);
        }
        if (times) {
                (void) printf("%llu\n", (unsigned long long) took / (unsigned long long) times);
        } else {
                r = gpu_bind(&d, gpus, (size_t) n, argv[3], str_eq(argv[4], "1"), &b, &e);
                if (r >= 0)
                        r = gpu_bind_proc(&d, gpus, (size_t) n, &b, &e);
                out = r < 0 ? json_pack("{s:i, s:s}", "r", r, "err", e.msg) : answer(&b);
                (void) json_dumpf(out, stdout, JSON_INDENT(1));
                json_decref(out);
                gpu_binding_done(&b);
        }
        for (int i = 0; i < n; i++)
                gpu_done(&gpus[i]);
        (void) close(d.root_fd);
        return 0;
}
