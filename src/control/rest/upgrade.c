/* upgrade.c - the handshake of WebSockets.  tensorone-api, loop thread. */
#include <errno.h>
#include <openssl/evp.h>
#include <strings.h>

#include "control/rest/http_priv.h"

/* A word of a comma list, as headers have them. */
static bool has_word(const char *list, const char *word)
{
        size_t n = strlen(word);

        for (const char *p = list; p && *p; p += strcspn(p, ",")) {
                p += strspn(p, ", \t");
                if (strncasecmp(p, word, n) == 0 && strchr(", \t", p[n]))
                        return true;
        }
        return false;
}

char *upgrade_offer(const struct http_request *q, const char *prefix)
{
        const char *list = http_header(q, "Sec-WebSocket-Protocol");

        for (const char *p = list; p && *p; p += strcspn(p, ",")) {
                const char *rest;

                p += strspn(p, ", \t");
                rest = str_after(p, prefix);
                if (rest)
                        return strndup(rest, strcspn(rest, ", \t"));
        }
        return NULL;
}

static int accept_key(const char *key, char ret[static UPGRADE_KEY_BYTES])
{
        AUTO(free) char *text = str_fmt("%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
        unsigned char md[EVP_MAX_MD_SIZE];
        unsigned len = 0;

        if (!text || EVP_Digest(text, strlen(text), md, &len, EVP_sha1(), NULL) != 1)
                return -ENOMEM;
        (void) EVP_EncodeBlock((unsigned char *) ret, md, (int) len);
        return 0;
}

bool upgrade_wanted(const struct http_request *q)
{
        return has_word(http_header(q, "Upgrade"), "websocket");
}

int upgrade_check(const struct http_request *q, const char *protocol,
                  char ret_accept[static UPGRADE_KEY_BYTES], struct err *e)
{
        const char *key = http_header(q, "Sec-WebSocket-Key");

        if (!upgrade_wanted(q) || !has_word(http_header(q, "Connection"), "upgrade") ||
            str_empty(key) || strlen(key) > 64 ||
            !str_eq(http_header(q, "Sec-WebSocket-Version"), "13"))
                return err_set(e, -EINVAL,
                               "this path takes a WebSocket (version 13) with the subprotocol %s",
                               protocol);
        if (!has_word(http_header(q, "Sec-WebSocket-Protocol"), protocol))
                return err_set(e, -EINVAL, "the WebSocket must offer the subprotocol %s", protocol);
        return accept_key(key, ret_accept);
}

void upgrade_reply(struct http_request *q, const char *protocol, const char *accept,
                   MHD_UpgradeHandler fn)
{
        struct MHD_Response *r = MHD_create_response_for_upgrade(fn, NULL);

        if (!r) {
                http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
                return;
        }
        (void) MHD_add_response_header(r, MHD_HTTP_HEADER_UPGRADE, "websocket");
        (void) MHD_add_response_header(r, "Sec-WebSocket-Accept", accept);
        (void) MHD_add_response_header(r, "Sec-WebSocket-Protocol", protocol);
        http_reply(q, MHD_HTTP_SWITCHING_PROTOCOLS, r);
}
