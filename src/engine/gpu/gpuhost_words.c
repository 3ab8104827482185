/* gpuhost_words.c - what vmm-gpu says is checked word by word and made anew: that program is believed
 * less than the engine, and others open files by what it names.  Pure. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "engine/gpu/gpuhost_priv.h"

#define PROCESSES_MAX 64U
#define PID_MAX       (1 << 22)

/* "00000000:07:00.0", lower case */
static bool is_address(const char *s)
{
        static const char form[] = "xxxxxxxx:xx:xx.x";

        if (!s || strlen(s) != strlen(form))
                return false;
        for (size_t i = 0; form[i]; i++)
                if (form[i] == 'x' ? !strchr("0123456789abcdef", s[i]) : s[i] != form[i])
                        return false;
        return true;
}

/* "1g.10gb", "1c.3g.20gb", "1g.10gb+me" */
static bool is_profile(const char *s)
{
        return *s && strlen(s) <= 24 &&
               strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789.+-") == strlen(s);
}

static void tame(char *s)
{
        if (s)
                str_tame(s, '?');
}

static int check_gpu(const struct gpu_fleet *f, struct gpu *g, struct err *e)
{
        const struct gpu *parent = g->parent ? gpu_fleet_find(f, g->parent) : NULL;

        if (g->state != GS_OK && g->state != GS_UNHEALTHY)
                return err_set(e, -EPROTO, "fleet: %s: state '%s' is not its to say", g->uuid,
                               gpu_state_names[g->state]);
        if (!is_address(g->pci))
                return err_set(e, -EPROTO, "fleet: %s: has no PCI address", g->uuid);
        if (g->minor > 255)
                return err_set(e, -EPROTO, "fleet: %s: minor %u", g->uuid, g->minor);
        if (!g->mig_profile != !g->parent || (g->mig_profile && !is_profile(g->mig_profile)))
                return err_set(e, -EPROTO, "fleet: %s: is half an instance", g->uuid);
        if (g->parent && (!parent || parent->mig_profile || !parent->mig_mode))
                return err_set(e, -EPROTO, "fleet: %s: lies on no GPU", g->uuid);
        tame(g->name);
        tame(g->serial);
        tame(g->vbios);
        tame(g->inforom);
        tame(g->reason);
        return 0;
}

int gpu_words_fleet(const json_t *msg, struct gpu_fleet *ret, struct err *e)
{
        struct gpu_fleet f;
        int r = gpu_fleet_decode(msg, &f, e);

        if (r < 0)
                return r;
        for (size_t i = 0; r >= 0 && i < f.n; i++)
                r = check_gpu(&f, &f.gpus[i], e);
        if (r < 0) {
                gpu_fleet_done(&f);
                return r;
        }
        tame(f.note);
        tame(f.driver_version);
        tame(f.cuda_version);
        *ret = f;
        return 0;
}

/* ---- "checked" ---- */

static const json_t *row_of(const json_t *gpus, const char *uuid)
{
        const json_t *row;
        size_t i;

        json_array_foreach(gpus, i, row) if (str_eq(jsonx_str(row, "uuid"), uuid)) return row;
        return NULL;
}

static void copy_number(const json_t *from, json_t *to, const char *key)
{
        const json_t *v = json_object_get(from, key);

        if (json_is_integer(v) && json_integer_value(v) >= 0)
                (void) json_object_set_new(to, key, json_integer(json_integer_value(v)));
}

static void copy_bool(const json_t *from, json_t *to, const char *key)
{
        const json_t *v = json_object_get(from, key);

        if (json_is_boolean(v))
                (void) json_object_set_new(to, key, json_boolean(json_is_true(v)));
}

static void copy_text(const json_t *from, json_t *to, const char *key)
{
        const char *s = jsonx_str(from, key);
        char text[64];

        if (!s)
                return;
        (void) snprintf(text, sizeof text, "%.63s", s);
        str_tame(text, '?');
        (void) json_object_set_new(to, key, json_string(text));
}

/* Absent: nobody knows whether there are any. */
static void copy_processes(const json_t *from, json_t *to)
{
        const json_t *list = json_object_get(from, "processes"), *one;
        json_t *copy;
        size_t i;

        if (!json_is_array(list))
                return;
        copy = json_array();
        json_array_foreach(list, i, one)
        {
                const json_t *pid = json_object_get(one, "pid");
                json_t *p;

                if (i >= PROCESSES_MAX)
                        break;
                p = json_object();
                if (json_is_integer(pid) && json_integer_value(pid) > 0 &&
                    json_integer_value(pid) <= PID_MAX)
                        copy_number(one, p, "pid");
                copy_number(one, p, "memory_mib");
                (void) json_array_append_new(copy, p);
        }
        (void) json_object_set_new(to, "processes", copy);
}

json_t *gpu_words_checked(const json_t *gpus, const char *uuid)
{
        static const char *const numbers[] = { "memory_used_mib", "ecc_uncorrected", "xid" };
        static const char *const bools[] = { "remap_pending", "remap_failed", "retired_pending" };
        static const char *const texts[] = { "vbios", "inforom" };
        const json_t *row = row_of(gpus, uuid);
        bool present = row && json_is_true(json_object_get(row, "present"));
        json_t *ret = json_pack("{s:s, s:b}", "uuid", uuid, "present", present);

        if (!present || !ret)
                return ret;
        copy_processes(row, ret);
        for (size_t i = 0; i < NELEM(numbers); i++)
                copy_number(row, ret, numbers[i]);
        for (size_t i = 0; i < NELEM(bools); i++)
                copy_bool(row, ret, bools[i]);
        for (size_t i = 0; i < NELEM(texts); i++)
                copy_text(row, ret, texts[i]);
        return ret;
}

/* ---- "event" ---- */

int gpu_words_event(const json_t *msg, struct gpu_word_event *ret, struct err *e)
{
        static const char *const kinds[] = { "xid", "throttle", "ecc" };
        const char *uuid = jsonx_str(msg, "uuid"), *kind = jsonx_str(msg, "kind"),
                   *text = jsonx_str(msg, "text");
        const json_t *code = json_object_get(msg, "code");
        size_t i = 0;

        while (i < NELEM(kinds) && !str_eq(kind, kinds[i]))
                i++;
        if (!gpu_uuid_ok(uuid) || i == NELEM(kinds) || !json_is_integer(code) ||
            json_integer_value(code) < 0)
                return err_set(e, -EPROTO, "event: is of no known form");
        *ret = (struct gpu_word_event){ .code = (uint64_t) json_integer_value(code) };
        (void) snprintf(ret->uuid, sizeof ret->uuid, "%s", uuid);
        (void) snprintf(ret->kind, sizeof ret->kind, "%s", kind);
        (void) snprintf(ret->text, sizeof ret->text, "%s", text ? text : "");
        str_tame(ret->text, '?');
        return 0;
}
