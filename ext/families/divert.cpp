// AF_DIVERT of FreeBSD 14, divert(4): (host, port). The kernel's address is an IPv4 address.
#include "families/inet.hpp"

namespace tracesock {

constexpr int af_divert = 44;

extern const Family divert_family;
constinit const Family divert_family{
    .family = af_divert,
    .protocol = any_protocol,
    .name = "divert",
    .smallest = sizeof(sockaddr_in),
    .largest = sizeof(sockaddr_in),
    .encode = encode_inet,
    .decode = decode_inet,
    .flags = resolves_names,
};

}  // namespace tracesock
