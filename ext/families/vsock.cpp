// AF_VSOCK, vsock(7): (CID, port).
#include "families/family.hpp"

namespace tracesock {
namespace {

constexpr int af_vsock = 40;

// struct sockaddr_vm of <linux/vm_sockets.h>.
struct VsockAddress {
    std::uint16_t family;
    std::uint16_t reserved;
    std::uint32_t port;
    std::uint32_t cid;
    std::uint8_t flags;
    std::uint8_t zero[3];
};
static_assert(sizeof(VsockAddress) == 16);

bool encode(Context& context, Object* object, Address& out) {
    // CPython's text names its own parser here, not the method.
    if (!context.is_tuple(object))
        return context.fail(Error::type,
                            "getsockaddrarg: AF_VSOCK address must be tuple, not %.500s",
                            context.type_name(object));
    unsigned cid = 0;
    unsigned port = 0;
    if (!context.unpack(object, "II:getsockaddrarg", &cid, &port)) return false;
    auto& vsock = out.emplace<VsockAddress>(af_vsock);
    vsock.cid = cid;
    vsock.port = port;
    return true;
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto vsock = read_address<VsockAddress>(address, length);
    return context.build("(II)", vsock.cid, vsock.port);
}

}  // namespace

extern const Family vsock_family;
constinit const Family vsock_family{
    .family = af_vsock,
    .protocol = any_protocol,
    .name = "vsock",
    .smallest = offsetof(VsockAddress, flags),
    .largest = sizeof(VsockAddress),
    .encode = encode,
    .decode = decode,
    .flags = options_are_64_bit,
};

}  // namespace tracesock
