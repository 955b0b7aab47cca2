// What the codecs of AF_BLUETOOTH share: numbers, device addresses and their text.
#pragma once

#include <array>

#include "families/family.hpp"

namespace tracesock {

inline constexpr int af_bluetooth = TRACESOCK_WINDOWS ? 32 : TRACESOCK_FREEBSD ? 36 : 31;
inline constexpr int bluetooth_l2cap = TRACESOCK_FREEBSD ? 135 : 0;
inline constexpr int bluetooth_hci = TRACESOCK_FREEBSD ? 134 : 1;
inline constexpr int bluetooth_sco = TRACESOCK_FREEBSD ? 137 : 2;
inline constexpr int bluetooth_rfcomm = TRACESOCK_FREEBSD ? 136 : 3;

// bdaddr_t: the least significant byte first.
using DeviceAddress = std::array<std::uint8_t, 6>;

// "01:23:45:67:89:AB", as short and in either case; false with OSError set.
bool parse_device(Context& context, const char* text, DeviceAddress& out);

struct DeviceText {
    char text[sizeof "01:23:45:67:89:AB"];
};
DeviceText format_device(const DeviceAddress& device);

// OSError "bind(): wrong format", in place of what the parser said.
bool wrong_format(Context& context);

}  // namespace tracesock
