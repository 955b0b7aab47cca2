// AF_QIPCRTR, the Qualcomm IPC router (net/qrtr in the kernel): (node, port).
#include "families/family.hpp"

namespace tracesock {
namespace {

constexpr int af_qipcrtr = 42;

// struct sockaddr_qrtr of <linux/qrtr.h>.
struct QrtrAddress {
    std::uint16_t family;
    std::uint16_t padding;
    std::uint32_t node;
    std::uint32_t port;
};
static_assert(sizeof(QrtrAddress) == 12);

bool encode(Context& context, Object* object, Address& out) {
    // CPython's text names its own parser here, not the method.
    if (!context.is_tuple(object))
        return context.fail(Error::type,
                            "getsockaddrarg: AF_QIPCRTR address must be tuple, not %.500s",
                            context.type_name(object));
    unsigned node = 0;
    unsigned port = 0;
    if (!context.unpack(object, "II:getsockaddrarg", &node, &port)) return false;
    auto& qrtr = out.emplace<QrtrAddress>(af_qipcrtr);
    qrtr.node = node;
    qrtr.port = port;
    return true;
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto qrtr = read_address<QrtrAddress>(address, length);
    return context.build("(II)", qrtr.node, qrtr.port);
}

}  // namespace

extern const Family qipcrtr_family;
constinit const Family qipcrtr_family{
    .family = af_qipcrtr,
    .protocol = any_protocol,
    .name = "qipcrtr",
    .smallest = sizeof(QrtrAddress),
    .largest = sizeof(QrtrAddress),
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

}  // namespace tracesock
