// AF_NETLINK, netlink(7): (pid, groups).
#include "families/family.hpp"

namespace tracesock {
namespace {

constexpr int af_netlink = TRACESOCK_FREEBSD ? 38 : 16;

// struct sockaddr_nl. FreeBSD's begins with a length and a family of one byte each.
struct NetlinkAddress {
    std::uint16_t family;
    std::uint16_t padding;
    std::uint32_t pid;
    std::uint32_t groups;
};
static_assert(sizeof(NetlinkAddress) == 12);

bool encode(Context& context, Object* object, Address& out) {
    if (!require_tuple(context, object, "AF_NETLINK")) return false;
    unsigned pid = 0;
    unsigned groups = 0;
    if (!context.unpack(object, "II;AF_NETLINK address must be a pair (pid, groups)", &pid,
                        &groups))
        return false;
    auto& netlink = out.emplace<NetlinkAddress>(af_netlink);
    netlink.pid = pid;
    netlink.groups = groups;
    return true;
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto netlink = read_address<NetlinkAddress>(address, length);
    return context.build("(II)", netlink.pid, netlink.groups);
}

}  // namespace

extern const Family netlink_family;
constinit const Family netlink_family{
    .family = af_netlink,
    .protocol = any_protocol,
    .name = "netlink",
    .smallest = sizeof(NetlinkAddress),
    .largest = sizeof(NetlinkAddress),
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

}  // namespace tracesock
