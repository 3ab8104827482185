/* session.h - one exec session: WebSocket frames on one side, the monitor's packets on the other
 * (docs/http-api.md, tensorone.exec.v1).  Owns itself; ends with either side or with the server. */
#pragma once
#include "control/rest/http.h"

struct session_conf {
        struct http_server *server;
        sd_event *loop;
        int fd; /* the client's socket, libmicrohttpd's */
        struct MHD_UpgradeResponseHandle *urh;
        const char *early; /* bytes that came with the handshake */
        size_t early_len;
        struct plane_use *use; /* taken; NULL: none */
        /* of a kept session: its name, for the client to come back with; NULL: it is not kept */
        const char *id;
        bool resume;   /* come back, */
        uint64_t from; /* and has had so many bytes of output */
        bool acks; /* the client says what it has taken, and is sent no more than SESSION_WINDOW ahead of that */
        const char *key; /* id of the caller's */
};

/* What the last ATTACH_KEPT_BYTES of a session's output are enough for. */
#define SESSION_WINDOW (96U << 10)

/* @monitor is taken in every case.  -errno: nothing was started. */
int session_new(const struct session_conf *conf, int monitor);

/* Tell the client why there is none, in the WebSocket: pages are not shown what an upgrade was refused with.
 * @gone: nor will there be one if it asks again. */
int session_refuse(const struct session_conf *conf, const char *sentence, bool gone);
