// AF_RDS, rds(7): (host, port). The kernel's address of an RDS socket is an IPv4 address.
#include "families/inet.hpp"

namespace tracesock {

constexpr int af_rds = 21;

extern const Family rds_family;
constinit const Family rds_family{
    .family = af_rds,
    .protocol = any_protocol,
    .name = "rds",
    .smallest = sizeof(sockaddr_in),
    .largest = sizeof(sockaddr_in),
    .encode = encode_inet,
    .decode = decode_inet,
    .flags = resolves_names,
};

}  // namespace tracesock
