// AF_BLUETOOTH with BTPROTO_RFCOMM, rfcomm(7): (bdaddr, channel).
#include "families/bluetooth.hpp"

namespace tracesock {
namespace {

// struct sockaddr_rc of <bluetooth/rfcomm.h>; sockaddr_rfcomm of FreeBSD's <ng_btsocket.h>, which
// has no byte of padding at its end and must not be given one.
struct RfcommAddress {
    std::uint16_t family;
    DeviceAddress device;
    std::uint8_t channel;
};
static_assert(sizeof(RfcommAddress) == 10);
constexpr socklen_t end = offsetof(RfcommAddress, channel) + 1;
constexpr socklen_t kernel_size = TRACESOCK_FREEBSD ? end : sizeof(RfcommAddress);

bool encode(Context& context, Object* object, Address& out) {
    const char* device = nullptr;
    unsigned char channel = 0;
    if (!context.is_tuple(object) || !context.unpack(object, "sB", &device, &channel))
        return wrong_format(context);
    auto& rfcomm = out.emplace<RfcommAddress>(af_bluetooth);
    rfcomm.channel = channel;
    out.length = kernel_size;
    return parse_device(context, device, rfcomm.device);
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto rfcomm = read_address<RfcommAddress>(address, length);
    return context.build("(sI)", format_device(rfcomm.device).text,
                         static_cast<unsigned>(rfcomm.channel));
}

// SOCKADDR_BTH of <ws2bth.h>, which is packed: the fields are copied byte by byte.
struct WindowsRfcommAddress {
    std::uint16_t family;
    DeviceAddress device;  // a 64-bit integer, whose upper two bytes are zero
    std::uint16_t zero;
    unsigned char service_class[16];
    unsigned char channel[4];
};
static_assert(sizeof(WindowsRfcommAddress) == 30);

bool encode_windows(Context& context, Object* object, Address& out) {
    const char* device = nullptr;
    unsigned long given_channel = 0;
    if (!context.is_tuple(object) || !context.unpack(object, "sk", &device, &given_channel))
        return wrong_format(context);
    auto& rfcomm = out.emplace<WindowsRfcommAddress>(af_bluetooth);
    const auto channel = static_cast<std::uint32_t>(given_channel);
    std::memcpy(rfcomm.channel, &channel, sizeof channel);
    return parse_device(context, device, rfcomm.device);
}

Object* decode_windows(Context& context, const sockaddr& address, socklen_t length) {
    const auto rfcomm = read_address<WindowsRfcommAddress>(address, length);
    std::uint32_t channel = 0;
    std::memcpy(&channel, rfcomm.channel, sizeof channel);
    return context.build("(si)", format_device(rfcomm.device).text, static_cast<int>(channel));
}

}  // namespace

extern const Family bluetooth_rfcomm_family;
constinit const Family bluetooth_rfcomm_family{
    .family = af_bluetooth,
    .protocol = bluetooth_rfcomm,
    .name = "bluetooth_rfcomm",
    .smallest = end,
    .largest = kernel_size,
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

extern const Family bluetooth_rfcomm_windows_family;
constinit const Family bluetooth_rfcomm_windows_family{
    .family = af_bluetooth,
    .protocol = bluetooth_rfcomm,
    .name = "bluetooth_rfcomm",
    .smallest = sizeof(WindowsRfcommAddress),
    .largest = sizeof(WindowsRfcommAddress),
    .encode = encode_windows,
    .decode = decode_windows,
    .flags = 0,
};

}  // namespace tracesock
