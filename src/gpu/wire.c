/* wire.c - what vmm-gpu and the engine say to each other. */
#include <errno.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "gpu/gpud.h"

void gpud_send(struct gpud *d, json_t *msg)
{
        int r = msg ? frame_send(d->conn, msg, NULL, 0) : -ENOMEM;

        json_decref(msg);
        if (r == -ENOMEM)
                log_error("out of memory");
        d->gone = d->gone || r < 0;
}

void gpud_at(struct gpud *d, const char *uuid, const char *call)
{
        if (uuid == d->at_uuid && call == d->at_call)
                return;
        d->at_uuid = uuid;
        d->at_call = call;
        gpud_send(d, json_pack("{s:s, s:s, s:s}", "type", "at", "gpu", uuid, "call", call));
}

void gpud_event(struct gpud *d, const char *uuid, const char *kind, uint64_t code, const char *text)
{
        gpud_send(d, json_pack("{s:s, s:I, s:s, s:s, s:I, s:s}", "type", "event", "at_us",
                               (json_int_t) clock_wall_us(), "uuid", uuid, "kind", kind, "code",
                               (json_int_t) code, "text", text));
}

static int on_open(struct gpud *d, const json_t *msg)
{
        const json_t *omit = json_object_get(msg, "omit"), *one;
        size_t i;

        d->omit = strv_free(d->omit);
        json_array_foreach(omit, i, one)
        {
                const char *uuid = json_string_value(one);

                if (gpu_uuid_ok(uuid) && strv_push(&d->omit, uuid) < 0)
                        return -ENOMEM;
        }
        d->asked = true;
        gpud_close(d);
        gpud_open(d);
        gpud_say_fleet(d, true);
        return 0;
}

static int on_check(struct gpud *d, const json_t *msg)
{
        gpud_check(d, json_integer_value(json_object_get(msg, "req")),
                   json_object_get(msg, "gpus"));
        return 0;
}

static const struct {
        const char *type;
        int (*fn)(struct gpud *d, const json_t *msg);
} messages[] = { { "open", on_open }, { "check", on_check } };

static int dispatch(struct gpud *d, const json_t *msg)
{
        const char *type = jsonx_str(msg, "type");

        for (size_t i = 0; i < NELEM(messages); i++)
                if (str_eq(type, messages[i].type))
                        return messages[i].fn(d, msg);
        return 0; /* a newer engine may know more */
}

int gpud_receive(struct gpud *d)
{
        struct frame_msg m;
        struct err e = { 0 };
        int r = 0;

        while (r >= 0 && (r = frame_recv(d->conn, &m, &e)) > 0) {
                r = dispatch(d, m.json);
                frame_msg_done(&m);
        }
        if (r == -EPROTO)
                log_error("the engine: %s", e.msg);
        return r;
}
