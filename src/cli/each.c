/* each.c - see each.h. */
#include "cli/each.h"

#include <errno.h>

#include "base/jsonx.h"

static int one(struct cli *c, each_fn *fn, void *arg, const char *word, json_t *answers,
               struct err *e)
{
        AUTO(json_put) json_t *answer = NULL;
        int r = fn(c, word, arg, &answer, e);

        if (answer && json_array_append(answers, answer) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        return r;
}

int each_operand(struct cli *c, each_fn *fn, void *arg, struct err *e)
{
        AUTO(json_put) json_t *answers = json_array();
        int status = 0, r;

        if (!answers)
                return err_set(e, -ENOMEM, "out of memory");
        for (size_t i = 0; i < c->n_operands; i++) {
                struct err why = { 0 };

                if (one(c, fn, arg, c->operands[i], answers, &why) >= 0)
                        continue;
                if (c->n_operands == 1)
                        return err_copy(e, &why);
                out_error(why.msg);
                status = 1;
        }
        if (!cli_json(c))
                return status;
        r = out_json(c->n_operands == 1 ? json_array_get(answers, 0) : answers, e);
        return r < 0 ? r : status;
}
