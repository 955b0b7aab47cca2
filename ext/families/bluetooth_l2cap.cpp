// AF_BLUETOOTH with BTPROTO_L2CAP, l2cap(7): (bdaddr, psm[, cid[, bdaddr_type]]).
#include "families/bluetooth.hpp"

namespace tracesock {
namespace {

constexpr unsigned bdaddr_bredr = 0;

// struct sockaddr_l2 of <bluetooth/l2cap.h>, sockaddr_l2cap of FreeBSD's <ng_btsocket.h>. Older
// kernels of both end it after the device address.
struct L2capAddress {
    std::uint16_t family;
    std::uint16_t psm;
    DeviceAddress device;
    std::uint16_t cid;
    std::uint8_t device_type;
};
static_assert(sizeof(L2capAddress) == 14);

bool encode(Context& context, Object* object, Address& out) {
    const char* device = nullptr;
    unsigned short psm = 0;
    unsigned short cid = 0;
    unsigned char device_type = bdaddr_bredr;
    if (!context.is_tuple(object) ||
        !context.unpack(object, "sH|HB", &device, &psm, &cid, &device_type))
        return wrong_format(context);
    auto& l2cap = out.emplace<L2capAddress>(af_bluetooth);
    l2cap.psm = psm;
    l2cap.cid = cid;
    l2cap.device_type = device_type;
    return parse_device(context, device, l2cap.device);
}

// As many items as say something that an older reader would not take for granted.
Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto l2cap = read_address<L2capAddress>(address, length);
    const DeviceText device = format_device(l2cap.device);
    const unsigned psm = l2cap.psm;
    const unsigned cid = l2cap.cid;
    const unsigned device_type = l2cap.device_type;
    if (device_type != bdaddr_bredr)
        return context.build("(sIII)", device.text, psm, cid, device_type);
    if (cid != 0) return context.build("(sII)", device.text, psm, cid);
    return context.build("(sI)", device.text, psm);
}

}  // namespace

extern const Family bluetooth_l2cap_family;
constinit const Family bluetooth_l2cap_family{
    .family = af_bluetooth,
    .protocol = bluetooth_l2cap,
    .name = "bluetooth_l2cap",
    .smallest = offsetof(L2capAddress, cid),
    .largest = sizeof(L2capAddress),
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

}  // namespace tracesock
