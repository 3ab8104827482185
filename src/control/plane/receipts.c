/* receipts.c - what the checks of GPUs found when a lease ended (docs/gpu.md), kept with the cluster and,
 * because that may go, in the journal for people.  tensorone-api.
 *
 * What always holds: nothing of the engine's message is stored that was not looked at; a receipt is
 * written once, however often it is reported. */
#include "base/jsonx.h"
#include "base/str.h"
#include "control/plane/plane_priv.h"
#include "model/gpu.h"

#define CHECKS_MOST 16U
#define TEXT_MOST   512U

static bool text_ok(const json_t *j)
{
        return json_is_string(j) && json_string_length(j) <= TEXT_MOST;
}

static bool checks_ok(const json_t *checks)
{
        const char *name;
        json_t *found;

        if (!json_is_object(checks) || json_object_size(checks) > CHECKS_MOST)
                return false;
        json_object_foreach((json_t *) (uintptr_t) checks, name, found)
        {
                if (!text_ok(found) || strspn(name, "abcdefghijklmnopqrstuvwxyz_") != strlen(name))
                        return false;
        }
        return true;
}

/* Only what we know of it; NULL: it is none. */
static json_t *clean(const json_t *r)
{
        const json_t *ok = json_object_get(r, "ok"), *at = json_object_get(r, "at_us");
        const json_t *reason = json_object_get(r, "reason");
        json_t *checks = json_object_get(r, "checks");
        const char *uuid = jsonx_str(r, "uuid");

        if (!gpu_uuid_ok(uuid) || !json_is_boolean(ok) || !json_is_integer(at) ||
            json_integer_value(at) < 0 || !checks_ok(checks) || (reason && !text_ok(reason)))
                return NULL;
        return json_pack("{s:s, s:b, s:I, s:O, s:s}", "uuid", uuid, "ok", json_is_true(ok), "at_us",
                         json_integer_value(at), "checks", checks, "reason",
                         reason ? json_string_value(reason) : "");
}

static bool is_known(const json_t *list, const json_t *receipt)
{
        size_t i;
        json_t *one;

        json_array_foreach(list, i, one)
        {
                if (json_equal(one, receipt))
                        return true;
        }
        return false;
}

static void tell(struct plane *p, struct store_txn *t, const struct cluster *c,
                 const json_t *receipt)
{
        AUTO(free) char *text = jsonx_dump(receipt);
        const struct event_view v = { .account = c->account,
                                      .cluster = c->id,
                                      .kind = "gpu.handover",
                                      .object = jsonx_str(receipt, "uuid"),
                                      .text = text };

        if (text)
                event_write(p, t, &v);
}

bool receipts_take(struct plane *p, struct store_txn *t, struct cluster *c, const json_t *list)
{
        AUTO(json_put) json_t *fresh = json_array();
        size_t i;
        json_t *one;

        if (!fresh || !json_is_array(list) || json_array_size(list) == 0 ||
            json_array_size(list) > GPU_MAX)
                return false;
        json_array_foreach(list, i, one)
        {
                AUTO(json_put) json_t *receipt = clean(one);

                if (!receipt || json_array_append(fresh, receipt) < 0)
                        continue;
                if (!is_known(c->gpu_receipts, receipt))
                        tell(p, t, c, receipt);
        }
        if (json_array_size(fresh) == 0 || json_equal(c->gpu_receipts, fresh))
                return false;
        json_decref(c->gpu_receipts);
        c->gpu_receipts = TAKE(fresh);
        return true;
}
