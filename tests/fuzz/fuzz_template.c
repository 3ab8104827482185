/* fuzz_template.c - libFuzzer target for templates: the row that the store keeps, and what a template or
 * a deployment says, from the API's checks to the engine's.  Input: JSON, {"row": {..}} or the fields of
 * a template {"imageName": S, "dockerArgs": S, "ports": S, "volumeMountPath": S, "env": [S]}.
 *
 * Checked beside memory errors: a row that is read is written the same; and what the API takes, the engine
 * takes, so that nobody deploys a template whose clusters then cannot start. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/plane/args.h"
#include "control/plane/record.h"
#include "model/limits.h"
#include "model/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x)) {                                                                        \
                        fprintf(stderr, "fuzz_template: %s\n", #x);                                \
                        __builtin_trap();                                                          \
                }                                                                                  \
        } while (0)

static void row(const json_t *j)
{
        AUTO(template_free) struct template *t = NULL, *again = NULL;
        AUTO(json_put) json_t *out = NULL, *twice = NULL;
        struct err e = { 0 };

        if (template_from_row(j, &t, &e) < 0) {
                CHECK(*e.msg);
                return;
        }
        out = template_to_row(t);
        CHECK(out && template_from_row(out, &again, &e) >= 0);
        twice = template_to_row(again);
        CHECK(twice && json_equal(out, twice));
}

struct said {
        const char *image, *args, *ports, *path;
        char **env, **entrypoint, **command;
        bool command_set;
};

/* As plane_save_template() and plane_deploy() ask. */
static int api_takes(struct said *s, struct err *e)
{
        struct plan_port ports[LIMIT_PORTS];
        int r = image_check(s->image, e);

        if (r >= 0)
                r = env_check(s->env, e);
        if (r >= 0 && s->args && strlen(s->args) > LIMIT_ARGS_BYTES)
                r = err_set(e, -1, "too long");
        if (r >= 0)
                r = docker_args_parse(s->args, &s->entrypoint, &s->command, &s->command_set, e);
        if (r >= 0)
                r = plan_ports(s->ports, ports, NELEM(ports), e);
        if (r >= 0 && !str_empty(s->path))
                r = plan_mount_path("volumeMountPath", s->path, e);
        return r;
}

static void engine_takes(const struct said *s)
{
        const struct plan p = { .cluster = (char *) (uintptr_t) "abc",
                                .generation = 1,
                                .account = (char *) (uintptr_t) "acc",
                                .name = (char *) (uintptr_t) "name",
                                .image = (char *) (uintptr_t) s->image,
                                .entrypoint = s->entrypoint,
                                .command = s->command,
                                .command_set = s->command_set,
                                .env = s->env,
                                .vcpu = 1,
                                .memory_mib = 1024,
                                .container_disk_gib = 1,
                                .volume_gib = str_empty(s->path) ? 0 : 1,
                                .volume_path = (char *) (uintptr_t) s->path,
                                .ports = (char *) (uintptr_t) s->ports };
        AUTO(json_put) json_t *j = plan_encode(&p);
        struct plan got = { 0 };
        struct err e = { 0 };

        CHECK(j);
        if (plan_decode(j, &got, &e) < 0) {
                fprintf(stderr, "%s\n", e.msg);
                CHECK(false); /* what the API takes, the engine takes */
        }
        plan_done(&got);
}

static void fields(const json_t *j)
{
        struct said s = { .image = jsonx_str(j, "imageName"),
                          .args = jsonx_str(j, "dockerArgs"),
                          .ports = jsonx_str(j, "ports"),
                          .path = jsonx_str(j, "volumeMountPath") };
        const json_t *one;
        struct err e = { 0 };
        size_t i;

        json_array_foreach(json_object_get(j, "env"), i, one)
        {
                const char *text = json_string_value(one);

                CHECK(!text || strv_push(&s.env, text) >= 0);
        }
        if (s.image && api_takes(&s, &e) >= 0)
                engine_takes(&s);
        else
                CHECK(!s.image || *e.msg);
        (void) strv_free(s.env);
        (void) strv_free(s.entrypoint);
        (void) strv_free(s.command);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        AUTO(json_put) json_t *j = jsonx_parse((const char *) data, size, NULL);
        const json_t *stored = json_object_get(j, "row");

        if (stored)
                row(stored);
        else if (j)
                fields(j);
        return 0;
}
