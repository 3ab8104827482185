/* takenover.c - stands in for a vmm-gpu that somebody has taken over: keeps every measure but one, and
 * lists other GPUs each time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/frame.h"
#include "base/str.h"

#define GPUS     64
#define PAUSE_US 550000

static json_t *fleet(unsigned turn)
{
        json_t *list = json_array();

        for (unsigned i = 0; i < GPUS; i++) {
                char uuid[64], pci[32];

                (void) snprintf(uuid, sizeof uuid, "GPU-%08x-0000-0000-0000-%04x%08x", turn, i,
                                (unsigned) getpid());
                (void) snprintf(pci, sizeof pci, "00000000:%02x:00.0", i);
                (void) json_array_append_new(
                        list, json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:s}", "uuid", uuid, "name",
                                        "simulated", "pci", pci, "index", (int) i, "minor", (int) i,
                                        "memory_mib", 1, "state", "ok"));
        }
        return json_pack("{s:s, s:s, s:s, s:o}", "type", "fleet", "driver_version", "1.2",
                         "cuda_version", "1", "list", list);
}

int main(int argc, char **argv)
{
        struct frame_conn *c = NULL;

        if (argc < 3 || !str_eq(argv[1], "--fd") || frame_conn_new(atoi(argv[2]), &c) < 0)
                return 2;
        for (unsigned turn = 0;; turn++) {
                json_t *msg = fleet(turn);

                if (!msg || frame_send(c, msg, NULL, 0) < 0)
                        return 1;
                json_decref(msg);
                (void) usleep(PAUSE_US);
        }
}
