// AF_BLUETOOTH with BTPROTO_HCI, hci(7): device_id or (device_id[, channel]); FreeBSD: the name of
// a netgraph node.
#include "families/bluetooth.hpp"

namespace tracesock {
namespace {

constexpr unsigned channel_raw = 0;

// struct sockaddr_hci of <bluetooth/hci.h>. Kernels before 2.6.38 end it after the device.
struct HciAddress {
    std::uint16_t family;
    std::uint16_t device;
    std::uint16_t channel;
};
static_assert(sizeof(HciAddress) == 6);

bool encode(Context& context, Object* object, Address& out) {
    unsigned short device = 0;
    unsigned short channel = channel_raw;
    if (context.is_int(object)) {
        if (!context.parse(object, "H", &device)) return false;
    } else if (!context.is_tuple(object) || !context.unpack(object, "H|H", &device, &channel)) {
        return wrong_format(context);
    }
    auto& hci = out.emplace<HciAddress>(af_bluetooth);
    hci.device = device;
    hci.channel = channel;
    return true;
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto hci = read_address<HciAddress>(address, length);
    const unsigned device = hci.device;
    const unsigned channel = hci.channel;
    if (channel == channel_raw) return context.build("I", device);
    return context.build("(II)", device, channel);
}

// struct sockaddr_hci of FreeBSD's <ng_btsocket.h>; the name fills it without a NUL where it is 32
// bytes long.
struct FreebsdHciAddress {
    std::uint8_t length;
    std::uint8_t family;
    char node[32];
};
static_assert(sizeof(FreebsdHciAddress) == 34);

bool encode_freebsd(Context& context, Object* object, Address& out) {
    const char* node = nullptr;
    if (!context.parse(object, "s", &node)) {
        context.clear();
        return context.fail(Error::os, "%s: wrong format", context.caller);
    }
    auto& hci = out.emplace<FreebsdHciAddress>(af_bluetooth);
    const std::size_t size = std::strlen(node);
    if (size > sizeof hci.node)
        return context.fail(Error::value, "%s: node too long", context.caller);
    std::memcpy(hci.node, node, size);
    return true;
}

Object* decode_freebsd(Context& context, const sockaddr& address, socklen_t length) {
    const auto hci = read_address<FreebsdHciAddress>(address, length);
    return context.build("s#", hci.node,
                         static_cast<std::ptrdiff_t>(strnlen(hci.node, sizeof hci.node)));
}

}  // namespace

extern const Family bluetooth_hci_family;
constinit const Family bluetooth_hci_family{
    .family = af_bluetooth,
    .protocol = bluetooth_hci,
    .name = "bluetooth_hci",
    .smallest = offsetof(HciAddress, channel),
    .largest = sizeof(HciAddress),
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

extern const Family bluetooth_hci_freebsd_family;
constinit const Family bluetooth_hci_freebsd_family{
    .family = af_bluetooth,
    .protocol = bluetooth_hci,
    .name = "bluetooth_hci",
    .smallest = offsetof(FreebsdHciAddress, node),
    .largest = sizeof(FreebsdHciAddress),
    .encode = encode_freebsd,
    .decode = decode_freebsd,
    .flags = 0,
};

}  // namespace tracesock
