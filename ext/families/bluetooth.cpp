// AF_BLUETOOTH with a protocol that has no codec, and what the protocols' codecs share.
#include "families/bluetooth.hpp"

#include <cstdio>

namespace tracesock {

bool parse_device(Context& context, const char* text, DeviceAddress& out) {
    unsigned byte[6] = {};
    char rest = 0;
    // The very scanf(3) conversions decide what is an address in CPython: blanks, signs and 0x are.
    const int matched = std::sscanf(text, "%X:%X:%X:%X:%X:%X%c", &byte[5], &byte[4], &byte[3],
                                    &byte[2], &byte[1], &byte[0], &rest);
    if (matched != 6 || (byte[0] | byte[1] | byte[2] | byte[3] | byte[4] | byte[5]) > 0xff)
        return context.fail(Error::os, "bad bluetooth address");
    std::copy(std::begin(byte), std::end(byte), out.begin());
    return true;
}

DeviceText format_device(const DeviceAddress& device) {
    DeviceText out;
    std::snprintf(out.text, sizeof out.text, "%02X:%02X:%02X:%02X:%02X:%02X", device[5], device[4],
                  device[3], device[2], device[1], device[0]);
    return out;
}

bool wrong_format(Context& context) {
    context.clear();
    return context.fail(Error::os, "%s(): wrong format", context.caller);
}

namespace {

bool refuse(Context& context, Object*, Address&) {
    return context.fail(Error::os, "%s(): unknown Bluetooth protocol", context.caller);
}

Object* decode(Context& context, const sockaddr&, socklen_t) {
    context.fail(Error::value, "Unknown Bluetooth protocol");
    return nullptr;
}

}  // namespace

extern const Family bluetooth_family;
constinit const Family bluetooth_family{
    .family = af_bluetooth,
    .protocol = any_protocol,
    .name = "bluetooth",
    .smallest = 0,
    .largest = 0,
    .encode = refuse,
    .decode = decode,
    .flags = 0,
    .unreadable = "getsockaddrlen: unknown BT protocol",
};

}  // namespace tracesock
