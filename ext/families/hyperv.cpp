// AF_HYPERV of Windows with HV_PROTOCOL_RAW, <hvsocket.h>: (vm_id, service_id), two UUIDs as str.
#include <cstdio>

#include "families/family.hpp"

namespace tracesock {
namespace {

constexpr int af_hyperv = 34;
constexpr int protocol_raw = 1;  // HV_PROTOCOL_RAW

// GUID: the first three fields are integers in host order.
struct Guid {
    std::uint32_t first;
    std::uint16_t second;
    std::uint16_t third;
    std::uint8_t rest[8];
};

// SOCKADDR_HV.
struct HypervAddress {
    std::uint16_t family;
    std::uint16_t reserved;
    Guid vm_id;
    Guid service_id;
};
static_assert(sizeof(HypervAddress) == 36);

constexpr char pattern[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

int hex_digit(char c) noexcept {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// UuidFromString: 36 characters, digits of either case.
bool parse_uuid(const char* text, Guid& out) noexcept {
    if (std::strlen(text) != sizeof pattern - 1) return false;
    std::uint8_t bytes[16] = {};
    std::size_t digits = 0;
    for (std::size_t i = 0; i < sizeof pattern - 1; ++i) {
        if (pattern[i] == '-') {
            if (text[i] != '-') return false;
            continue;
        }
        const int digit = hex_digit(text[i]);
        if (digit < 0) return false;
        auto& byte = bytes[digits++ / 2];
        byte = static_cast<std::uint8_t>(byte << 4 | digit);
    }
    out.first = static_cast<std::uint32_t>(bytes[0]) << 24 |
                static_cast<std::uint32_t>(bytes[1]) << 16 |
                static_cast<std::uint32_t>(bytes[2]) << 8 | bytes[3];
    out.second = static_cast<std::uint16_t>(bytes[4] << 8 | bytes[5]);
    out.third = static_cast<std::uint16_t>(bytes[6] << 8 | bytes[7]);
    std::copy(bytes + 8, bytes + 16, out.rest);
    return true;
}

struct UuidText {
    char text[sizeof pattern];
};

UuidText format_uuid(const Guid& guid) noexcept {
    UuidText out;
    const auto& rest = guid.rest;
    std::snprintf(out.text, sizeof out.text, "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                  static_cast<unsigned>(guid.first), static_cast<unsigned>(guid.second),
                  static_cast<unsigned>(guid.third), rest[0], rest[1], rest[2], rest[3], rest[4],
                  rest[5], rest[6], rest[7]);
    return out;
}

bool encode_uuid(Context& context, Object* object, const char* field, Guid& out) {
    const char* text = nullptr;
    if (context.parse(object, "s", &text) && parse_uuid(text, out)) return true;
    context.clear();
    return context.fail(Error::value, "%s(): AF_HYPERV address %s is not a valid UUID string",
                        context.caller, field);
}

bool encode(Context& context, Object* object, Address& out) {
    if (!require_tuple(context, object, "AF_HYPERV")) return false;
    Object* vm_id = nullptr;
    Object* service_id = nullptr;
    if (!context.unpack(object, "UU;AF_HYPERV address must be a str tuple (vm_id, service_id)",
                        &vm_id, &service_id))
        return false;
    auto& hyperv = out.emplace<HypervAddress>(af_hyperv);
    return encode_uuid(context, vm_id, "vm_id", hyperv.vm_id) &&
           encode_uuid(context, service_id, "service_id", hyperv.service_id);
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto hyperv = read_address<HypervAddress>(address, length);
    return context.build("(ss)", format_uuid(hyperv.vm_id).text,
                         format_uuid(hyperv.service_id).text);
}

bool refuse(Context& context, Object*, Address&) {
    return context.fail(Error::os, "%s(): unsupported AF_HYPERV protocol: %d", context.caller,
                        context.protocol);
}

}  // namespace

extern const Family hyperv_family;
constinit const Family hyperv_family{
    .family = af_hyperv,
    .protocol = protocol_raw,
    .name = "hyperv",
    .smallest = sizeof(HypervAddress),
    .largest = sizeof(HypervAddress),
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

extern const Family hyperv_unsupported_family;
constinit const Family hyperv_unsupported_family{
    .family = af_hyperv,
    .protocol = any_protocol,
    .name = "hyperv_unsupported",
    .smallest = sizeof(HypervAddress),
    .largest = sizeof(HypervAddress),
    .encode = refuse,
    .decode = decode,
    .flags = 0,
};

}  // namespace tracesock
