/* faults.c - trouble on command: a text file, one fault a line, read again by every call.  Its
 * name is in HVMM_SIMULATED_FAULTS or, without that, "faults" beside the description. docs/gpu.md has
 * the lines. */
#include "fake.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

/* What follows the GPU: one letter a word. n, m: numbers a and b; w: a word; lower case must be there. */
static const struct {
        const char *name, *words;
} kinds[F_COUNT] = {
        [F_HANG] = { "hang", "w" },
        [F_FAIL] = { "fail", "wn" },
        [F_LOSE] = { "lose", "" },
        [F_XID] = { "xid", "n" },
        [F_LEAK] = { "leak", "n" },
        [F_VBIOS] = { "vbios", "w" },
        [F_INFOROM] = { "inforom", "w" },
        [F_ECC] = { "ecc", "n" },
        [F_ECC_CORRECTED] = { "ecc-corrected", "n" },
        [F_REMAP] = { "remap", "w" },
        [F_RETIRED] = { "retired", "" },
        [F_UTIL] = { "util", "n" },
        [F_TEMPERATURE] = { "temperature", "n" },
        [F_THROTTLE] = { "throttle", "n" },
        [F_PROCESS] = { "process", "nm" },
};

static struct {
        struct fault list[FAULTS_MAX];
        size_t n;
        char text[16384];
} faults;

uint64_t now_ms(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t) t.tv_sec * 1000 + (uint64_t) t.tv_nsec / 1000000;
}

void pause_ms(unsigned ms)
{
        const struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

        (void) nanosleep(&t, NULL);
}

static void complain(const char *line, const char *why)
{
        (void) fprintf(stderr, "simulated driver: faults: '%.80s': %s\n", line, why);
}

/* One line, cut into words in place.  Words after the known ones make a line a new one. */
static bool parse_line(char *line, struct fault *f)
{
        char *words[8];
        size_t n = 0, k = 1;

        *f = (struct fault){ .hash = gpu_sim_hash(line, 0) };
        for (char *p = line + strspn(line, " \t"); *p && *p != '#' && n < NELEM(words);) {
                words[n++] = p;
                p += strcspn(p, " \t");
                if (*p)
                        *p++ = '\0';
                p += strspn(p, " \t");
        }
        if (n == 0)
                return false;
        while (k < F_COUNT && !str_eq(kinds[k].name, words[0]))
                k++;
        if (k == F_COUNT || n < 2 + strlen(kinds[k].words) || strlen(words[1]) >= sizeof f->gpu) {
                complain(words[0], "not understood");
                return false;
        }
        memcpy(f->gpu, words[1], strlen(words[1]) + 1);
        for (size_t i = 0; kinds[k].words[i]; i++) {
                const char *word = words[2 + i];
                uint64_t *number = kinds[k].words[i] == 'm' ? &f->b : &f->a;

                if (kinds[k].words[i] == 'w')
                        (void) snprintf(f->word, sizeof f->word, "%s", word);
                else if (str_u64(word, 0, UINT64_MAX, number) < 0) {
                        complain(words[0], "a number was expected");
                        return false;
                }
        }
        f->kind = (enum fault_kind) k;
        return true;
}

static void parse(char *text)
{
        faults.n = 0;
        while (*text && faults.n < FAULTS_MAX) {
                char *end = text + strcspn(text, "\n"), *next = end + (*end != '\0');

                *end = '\0';
                if (parse_line(text, &faults.list[faults.n]))
                        faults.n++;
                text = next;
        }
}

static bool file_name(char *path, size_t size)
{
        const char *own = getenv("HVMM_SIMULATED_FAULTS"), *fleet = getenv("HVMM_SIMULATED_FLEET"),
                   *slash = fleet ? strrchr(fleet, '/') : NULL;
        int n = 0;

        if (own)
                n = snprintf(path, size, "%s", own);
        else if (slash)
                n = snprintf(path, size, "%.*sfaults", (int) (slash - fleet + 1), fleet);
        return n > 0 && (size_t) n < size;
}

void faults_refresh(void)
{
        static char fresh[sizeof faults.text], work[sizeof faults.text];
        char path[512];
        ssize_t n;
        int fd;

        if (!file_name(path, sizeof path))
                return;
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? 0 : read(fd, fresh, sizeof fresh - 1);
        if (fd >= 0)
                (void) close(fd);
        fresh[n > 0 ? n : 0] = '\0';
        if (str_eq(fresh, faults.text))
                return;
        memcpy(faults.text, fresh, sizeof fresh);
        memcpy(work, fresh, sizeof fresh);
        parse(work);
}

static bool is_about(const struct fault *f, const struct nvml_device *d)
{
        uint64_t index;

        if (!d)
                return str_eq(f->gpu, "-") || str_eq(f->gpu, "*");
        if (str_eq(f->gpu, "*") || str_eq(f->gpu, gpu_of(d)->uuid) ||
            (d->is_mig && str_eq(f->gpu, world.sim.migs[d->at].uuid)))
                return true;
        return str_u64(f->gpu, 0, GPU_SIM_MAX, &index) >= 0 &&
               &world.sim.gpus[index < GPU_SIM_MAX ? index : 0] == gpu_of(d);
}

const struct fault *fault_find(enum fault_kind kind, const struct nvml_device *d, unsigned nth)
{
        for (size_t i = 0; i < faults.n; i++)
                if (faults.list[i].kind == kind && is_about(&faults.list[i], d) && nth-- == 0)
                        return &faults.list[i];
        return NULL;
}

uint64_t fault_number(enum fault_kind kind, const struct nvml_device *d, uint64_t preset)
{
        const struct fault *f = fault_find(kind, d, 0);

        return f ? f->a : preset;
}

/* ---- the beginning of each call ---- */

static int obey(const char *call, const struct nvml_device *d)
{
        const struct fault *f;

        for (unsigned i = 0; (f = fault_find(F_HANG, d, i)); i++)
                while (str_eq(f->word, call) || str_eq(f->word, "*"))
                        pause_ms(1000); /* as a driver that does not answer: for good */
        for (unsigned i = 0; (f = fault_find(F_FAIL, d, i)); i++)
                if (str_eq(f->word, call) || str_eq(f->word, "*"))
                        return (int) f->a;
        return d && fault_find(F_LOSE, d, 0) ? NVML_GPU_IS_LOST : NVML_SUCCESS;
}

int begin(const char *call)
{
        faults_refresh();
        return world.users ? obey(call, NULL) : NVML_UNINITIALIZED;
}

int begin_device(const char *call, const struct nvml_device *d)
{
        bool known = false;

        if (!world.users)
                return NVML_UNINITIALIZED;
        for (uint32_t i = 0; i < GPU_SIM_MAX; i++)
                known |= (d == &world.gpus[i] && i < world.sim.n_gpus) ||
                         (d == &world.migs[i] && i < world.sim.n_migs);
        if (!known)
                return NVML_INVALID_ARGUMENT;
        faults_refresh();
        return obey(call, d);
}

int begin_whole(const char *call, const struct nvml_device *d)
{
        int r = begin_device(call, d);

        return r == NVML_SUCCESS && d->is_mig ? NVML_NOT_SUPPORTED : r;
}

int give_text(const char *from, char *to, unsigned length)
{
        if (!to)
                return NVML_INVALID_ARGUMENT;
        if (strlen(from) >= length)
                return NVML_INSUFFICIENT_SIZE;
        memcpy(to, from, strlen(from) + 1);
        return NVML_SUCCESS;
}
