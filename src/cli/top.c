/* top.c - see top.h.
 *
 * What always holds: no line is wider than `cols`, and no byte of a tenant's name reaches the
 * terminal as an order. */
#include "cli/top.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsonx.h"
#include "cli/gpus.h"
#include "cli/out.h"

#define BAR_MAX 30U /* blocks */
#define BAR_MIN 5U

struct picture {
        const struct top_picture *t;
        struct strbuf *out;
        size_t lines, left_out;
};

/* ---- lines ---- */

/* At most @cols columns of @s, which has no control characters. */
static size_t fitting(const char *s, size_t cols)
{
        size_t n = 0, width = 0;

        for (; s[n]; n++) {
                if (((unsigned char) s[n] & 0xc0) != 0x80 && ++width > cols)
                        break;
        }
        return n;
}

/* Takes the content of @line. */
static void put_line(struct picture *p, struct strbuf *line)
{
        AUTO(free) char *text = strbuf_take(line);
        size_t n;

        if (!text) {
                p->out->failed = true;
                return;
        }
        if (p->t->rows && p->lines + 2 > p->t->rows) { /* the last line is for the count */
                p->left_out++;
                return;
        }
        str_tame(text, '?');
        n = p->t->cols ? fitting(text, p->t->cols) : strlen(text);
        while (n > 0 && text[n - 1] == ' ')
                n--;
        strbuf_add(p->out, text, n);
        strbuf_char(p->out, '\n');
        p->lines++;
}

static void put_empty(struct picture *p)
{
        struct strbuf line = { 0 };

        put_line(p, &line);
}

/* @text in @width columns, cut or padded; one blank behind. */
static void cell(struct strbuf *b, const char *text, size_t width)
{
        size_t n = fitting(text, width), w;

        strbuf_add(b, text, n);
        for (w = text_width(text) < width ? text_width(text) : width; w <= width; w++)
                strbuf_char(b, ' ');
}

static void cell_right(struct strbuf *b, const char *text, size_t width)
{
        for (size_t w = text_width(text); w < width; w++)
                strbuf_char(b, ' ');
        cell(b, text, text_width(text) < width ? text_width(text) : width);
}

/* "[####......] 37% "; nothing known: "[..........]   - ". */
static void bar(struct strbuf *b, double pct, size_t blocks)
{
        double v = isnan(pct) || pct < 0 ? 0 : pct > 100 ? 100 : pct;
        size_t fill = (size_t) (v * (double) blocks / 100 + 0.5);
        char text[16] = "-";

        strbuf_char(b, '[');
        for (size_t i = 0; i < blocks; i++)
                strbuf_char(b, i < fill ? '#' : '.');
        strbuf_char(b, ']');
        if (!isnan(pct))
                (void) snprintf(text, sizeof text, "%.0f%%", v);
        cell_right(b, text, 5);
}

static void value(struct strbuf *b, double v, const char *unit, size_t width)
{
        char text[32] = "-";

        if (!isnan(v))
                (void) snprintf(text, sizeof text, "%.0f%s", v, unit);
        cell_right(b, text, width);
}

static const char *text_of(const json_t *j, const char *key)
{
        const char *s = jsonx_str(j, key);

        return s ? s : "";
}

/* ---- GPUs ---- */

/* What is left of a line for one of @bars bars when its other columns take @fixed. */
static size_t bar_blocks(const struct top_picture *t, size_t fixed, size_t bars)
{
        size_t frame = 8; /* brackets, percent, blank */
        size_t cols = t->cols ? t->cols : 120, room;

        room = cols > fixed ? (cols - fixed) / bars : 0;
        room = room > frame ? room - frame : 0;
        return room < BAR_MIN ? BAR_MIN : room > BAR_MAX ? BAR_MAX : room;
}

enum { W_GPU = 3, W_TYPE = 32, W_MEM = 11, W_TEMP = 5, W_POWER = 6, W_STATE = 11, W_CLUSTER = 14 };
#define GPU_FIXED (W_GPU + W_MEM + W_TEMP + W_POWER + W_STATE + W_CLUSTER + 7)

static const char *type_of(const json_t *gpu)
{
        const char *name = text_of(gpu, "displayName");

        return *name ? name : text_of(gpu, "name");
}

/* As wide as the widest one, within reason. */
static size_t type_width(const json_t *gpus)
{
        size_t w = sizeof "TYPE" - 1, i;
        const json_t *gpu;

        json_array_foreach(gpus, i, gpu)
        {
                size_t n = text_width(type_of(gpu));

                w = n > w ? n : w;
        }
        return w < W_TYPE ? w : W_TYPE;
}

static void gpu_header(struct picture *p, size_t blocks, size_t w_type)
{
        struct strbuf b = { 0 };

        cell(&b, "GPU", W_GPU);
        cell(&b, "TYPE", w_type);
        cell(&b, "UTIL", blocks + 7);
        cell(&b, "MEMORY", blocks + 7);
        cell_right(&b, "GiB", W_MEM);
        cell_right(&b, "TEMP", W_TEMP);
        cell_right(&b, "POWER", W_POWER);
        cell(&b, "STATE", W_STATE);
        cell(&b, "CLUSTER", W_CLUSTER);
        put_line(p, &b);
}

static void gpu_line(struct picture *p, const json_t *gpu, size_t blocks, size_t w_type)
{
        double used = gpu_number(gpu, "memory_used_mib"), all = gpu_number(gpu, "memory_total_mib");
        struct strbuf b = { 0 };
        char text[48];

        (void) snprintf(text, sizeof text, "%lld",
                        (long long) json_integer_value(json_object_get(gpu, "index")));
        cell_right(&b, text, W_GPU);
        cell(&b, type_of(gpu), w_type);
        bar(&b, gpu_number(gpu, "util_pct"), blocks);
        bar(&b, 100 * used / all, blocks);
        (void) snprintf(text, sizeof text, "%.1f/%.1f", used / 1024, all / 1024);
        cell_right(&b, isnan(used) || isnan(all) ? "-" : text, W_MEM);
        value(&b, gpu_number(gpu, "temperature_c"), "C", W_TEMP);
        value(&b, gpu_number(gpu, "power_mw") * 1e-3, "W", W_POWER);
        cell(&b, text_of(gpu, "state"), W_STATE);
        cell(&b, text_of(gpu, "clusterId"), W_CLUSTER);
        put_line(p, &b);
}

static void put_gpus(struct picture *p)
{
        size_t w_type = type_width(p->t->gpus), i;
        size_t blocks = bar_blocks(p->t, GPU_FIXED + w_type, 2);
        const json_t *gpu;

        if (json_array_size(p->t->gpus) == 0)
                return;
        put_empty(p);
        gpu_header(p, blocks, w_type);
        json_array_foreach(p->t->gpus, i, gpu)
        {
                if (json_is_true(json_object_get(gpu, "forRent")))
                        gpu_line(p, gpu, blocks, w_type);
        }
}

/* ---- clusters ---- */

enum { W_ID = 14, W_NAME = 20, W_PHASE = 10, W_GPUS = 4, W_WAIT = 15 };
#define CLUSTER_FIXED (W_ID + W_NAME + W_PHASE + W_GPUS + W_WAIT + 5)

static double number_of(const json_t *j, const char *key)
{
        const json_t *v = json_object_get(j, key);

        return json_is_number(v) ? json_number_value(v) : (double) NAN;
}

/* "3/0/12%": what it has waited for, as in `get cluster -a`. */
static void waits(struct strbuf *b, const json_t *cluster)
{
        const json_t *c = json_object_get(json_object_get(cluster, "runtime"), "container");
        double cpu = number_of(c, "cpuPressurePercent");
        double memory = number_of(c, "memoryPressurePercent");
        double io = number_of(c, "ioPressurePercent");
        char text[64] = "-";

        if (!isnan(cpu) && !isnan(memory) && !isnan(io))
                (void) snprintf(text, sizeof text, "%.0f/%.0f/%.0f%%", cpu, memory, io);
        cell_right(b, text, W_WAIT);
}

static void put_clusters(struct picture *p)
{
        size_t blocks = bar_blocks(p->t, CLUSTER_FIXED, 4), i;
        struct strbuf b = { 0 };
        const json_t *k;

        put_empty(p);
        cell(&b, "CLUSTER", W_ID);
        cell(&b, "NAME", W_NAME);
        cell(&b, "PHASE", W_PHASE);
        cell(&b, "CPU", blocks + 7);
        cell(&b, "MEMORY", blocks + 7);
        cell_right(&b, "CPU/MEM/IO WAIT", W_WAIT);
        cell_right(&b, "GPUS", W_GPUS);
        cell(&b, "UTIL", blocks + 7);
        cell(&b, "GPU MEMORY", blocks + 7);
        put_line(p, &b);
        json_array_foreach(p->t->clusters, i, k)
        {
                const json_t *t = json_object_get(k, "latestTelemetry");
                const json_t *mean = json_object_get(t, "averageGpuMetrics");
                struct strbuf line = { 0 };

                cell(&line, text_of(k, "id"), W_ID);
                cell(&line, text_of(k, "name"), W_NAME);
                cell(&line, text_of(k, "phase"), W_PHASE);
                bar(&line, number_of(t, "cpuUtilization"), blocks);
                bar(&line, number_of(t, "memoryUtilization"), blocks);
                waits(&line, k);
                value(&line, number_of(k, "gpuCount"), "", W_GPUS);
                if (json_is_object(mean)) {
                        bar(&line, number_of(mean, "percentUtilization"), blocks);
                        bar(&line, number_of(mean, "memoryUtilization"), blocks);
                }
                put_line(p, &line);
        }
}

/* ---- all of it ---- */

static void headline(struct picture *p)
{
        const json_t *h = p->t->host;
        struct strbuf b = { 0 };

        strbuf_fmt(&b, "tensorone %s", p->t->time);
        if (h && jsonx_str(h, "id"))
                strbuf_fmt(&b, "  host %s", jsonx_str(h, "id"));
        if (h && jsonx_str(h, "driverVersion"))
                strbuf_fmt(&b, "  driver %s", jsonx_str(h, "driverVersion"));
        if (h && jsonx_str(h, "cudaVersion"))
                strbuf_fmt(&b, "  CUDA %s", jsonx_str(h, "cudaVersion"));
        if (h && json_is_true(json_object_get(h, "simulated")))
                strbuf_str(&b, "  (simulated)");
        if (p->t->note)
                strbuf_fmt(&b, "  ! %s", p->t->note);
        put_line(p, &b);
        if (h && p->t->gpus && json_array_size(p->t->gpus) == 0 && jsonx_str(h, "gpuNote")) {
                strbuf_fmt(&b, "no GPUs: %s", jsonx_str(h, "gpuNote"));
                put_line(p, &b);
        }
}

void top_text(const struct top_picture *t, struct strbuf *out)
{
        struct picture p = { .t = t, .out = out };

        headline(&p);
        put_gpus(&p);
        put_clusters(&p);
        if (p.left_out > 0)
                strbuf_fmt(out, "... %zu more lines\n", p.left_out);
}
