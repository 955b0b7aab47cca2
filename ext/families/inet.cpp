// AF_INET, ip(7): (host, port).
#include "families/inet.hpp"

#include <charconv>
#include <cstring>

namespace tracesock {

bool parse_inet(const char* text, in_addr& out) noexcept {
    std::uint32_t address = 0;
    for (int part = 0; part < 4; ++part) {
        if (part != 0 && *text++ != '.') return false;
        const bool zero = *text == '0';
        unsigned value = 0;
        int digits = 0;
        for (; *text >= '0' && *text <= '9'; ++text) {
            if (++digits > 3) return false;
            value = value * 10 + static_cast<unsigned>(*text - '0');
        }
        if (digits == 0 || value > 255 || (zero && digits > 1)) return false;
        address = address << 8 | value;
    }
    out.s_addr = htonl(address);
    return *text == '\0';
}

bool encode_inet(Context& context, Object* object, Address& out) {
    if (!require_tuple(context, object, "AF_INET")) return false;
    Text host{&context};
    int port = 0;
    if (!context.host_and_port(object, "AF_INET address must be a pair (host, port)", host, port)) {
        if (!context.error_is(Error::overflow)) return false;
        context.clear();
        return context.fail(Error::overflow, "%s(): port must be 0-65535.", context.caller);
    }
    if (!context.resolve(host.data, AF_INET, out)) return false;
    if (port < 0 || port > 0xffff)
        return context.fail(Error::overflow, "%s(): port must be 0-65535.", context.caller);
    const in_addr resolved = out.inet.sin_addr;
    auto& inet = out.emplace<sockaddr_in>(AF_INET);
    inet.sin_addr = resolved;
    inet.sin_port = htons(static_cast<std::uint16_t>(port));
    return true;
}

void print_inet(const in_addr& address, char* text) noexcept {
    unsigned char parts[sizeof address];
    std::memcpy(parts, &address, sizeof parts);
    char* end = text;
    for (const unsigned part : parts) {
        end = std::to_chars(end, text + INET_ADDRSTRLEN, part).ptr;
        *end++ = '.';
    }
    end[-1] = '\0';
}

Object* decode_inet(Context& context, const sockaddr& address, socklen_t) {
    const auto& inet = reinterpret_cast<const sockaddr_in&>(address);
    char text[INET_ADDRSTRLEN + 1];
    print_inet(inet.sin_addr, text);
    return context.build("(si)", text, static_cast<int>(ntohs(inet.sin_port)));
}

constinit const Family inet_family{
    .family = AF_INET,
    .protocol = any_protocol,
    .name = "inet",
    .smallest = sizeof(sockaddr_in),
    .largest = sizeof(sockaddr_in),
    .encode = encode_inet,
    .decode = decode_inet,
    .flags = resolves_names,
};

}  // namespace tracesock
