// AF_BLUETOOTH with BTPROTO_SCO, sco(7): a device address, str or bytes.
#include "families/bluetooth.hpp"

namespace tracesock {
namespace {

// struct sockaddr_sco of <bluetooth/sco.h> and of FreeBSD's <ng_btsocket.h>.
struct ScoAddress {
    std::uint16_t family;
    DeviceAddress device;
};
static_assert(sizeof(ScoAddress) == 8);

bool encode(Context& context, Object* object, Address& out) {
    const char* device = nullptr;
    if (context.is_bytes(object)) {
        if (!context.parse(object, "y", &device)) return false;
    } else if (context.is_text(object)) {
        if (!context.parse(object, "s", &device)) return false;
    } else {
        return wrong_format(context);
    }
    auto& sco = out.emplace<ScoAddress>(af_bluetooth);
    return parse_device(context, device, sco.device);
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto sco = read_address<ScoAddress>(address, length);
    return context.build("s", format_device(sco.device).text);
}

}  // namespace

extern const Family bluetooth_sco_family;
constinit const Family bluetooth_sco_family{
    .family = af_bluetooth,
    .protocol = bluetooth_sco,
    .name = "bluetooth_sco",
    .smallest = sizeof(ScoAddress),
    .largest = sizeof(ScoAddress),
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

}  // namespace tracesock
