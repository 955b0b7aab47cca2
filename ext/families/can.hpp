// What the codecs of AF_CAN share: the address structure and the interface that each names.
#pragma once

#include "families/family.hpp"

namespace tracesock {

inline constexpr int af_can = 29;

// struct sockaddr_can of <linux/can.h>.
struct CanAddress {
    std::uint16_t family;
    std::uint16_t padding;
    std::int32_t ifindex;
    union {
        struct {
            std::uint32_t rx_id;
            std::uint32_t tx_id;
        } isotp;
        struct {
            std::uint64_t name;
            std::uint32_t pgn;
            std::uint8_t address;
        } j1939;
    };
};
static_assert(sizeof(CanAddress) == 24);

// Where the kernel's addresses of each protocol end (its CAN_REQUIRED_SIZE).
inline constexpr socklen_t can_interface_end = 8;
inline constexpr socklen_t can_isotp_end = 16;
inline constexpr socklen_t can_j1939_end = 21;
static_assert(offsetof(CanAddress, isotp) == can_interface_end);

// The index of an interface by name, 0 for "" (every interface).
bool can_ifindex(Context& context, const Text& name, std::int32_t& ifindex);

// The name of an interface as str, "" for index 0; a new reference.
Object* can_ifname(Context& context, std::int32_t ifindex);

}  // namespace tracesock
