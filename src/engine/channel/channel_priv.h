/* channel_priv.h - shared by the files of this folder. */
#pragma once
#include <stdbool.h>

#include "base/frame.h"
#include "engine/channel/channel.h"

struct facts;
struct request;

struct channel {
        struct channel_spec spec;
        struct fleet *fleet;
        struct facts *facts;
        const struct gpuhost *gpus;
        int listener;
        struct frame_conn *conn; /* the one control plane, or NULL */
        sd_event_source *listen_src, *conn_src;
        bool welcome; /* it has answered hello */
        uint64_t seq;
        struct request *requests;
        json_t *waiting
                [256]; /* security events for the next peer: a ring, with n_waiting ever put in */
        size_t n_waiting;
};

void channel_send(struct channel *c, const json_t *msg, const int *fds, size_t n_fds);

/* gpus.c: two requests */
int channel_gpu_release(struct channel *c, const json_t *args, struct err *e);
int channel_gpu_vfio(struct channel *c, json_t **ret, struct err *e);

/* security.c */
void security_send_waiting(struct channel *c);
void security_forget(struct channel *c);

/* request.c */
int request_handle(struct channel *c, const struct frame_msg *m, struct err *e);
int request_cancel(struct channel *c, const struct frame_msg *m, struct err *e);
void request_drop_all(struct channel *c); /* answers of lost requests go nowhere */
