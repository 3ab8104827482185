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
};

/* @monitor is taken in every case.  -errno: nothing was started. */
int session_new(const struct session_conf *conf, int monitor);
