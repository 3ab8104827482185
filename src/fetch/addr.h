/* addr.h - which network addresses a tenant may make this host connect to.  Pure. */
#pragma once
#include <stdbool.h>
#include <sys/socket.h>

/* Why an address is not for everybody: "loopback", "private", "link-local"...; NULL: it is a public
 * unicast address.  IPv4 inside IPv6 (mapped, NAT64, 6to4, Teredo) is judged as IPv4.  Anything but
 * IPv4 and IPv6 is "not an internet address". */
const char *addr_refusal(const struct sockaddr *sa, socklen_t len);

/* Whether HOST[:PORT] of the configuration means @host (no brackets) on @port; without a port it
 * means the scheme's own (@default_port). */
bool addr_listed(const char *entry, const char *host, unsigned port, unsigned default_port);
