// The IPv4 codec, which other families with IPv4 addresses (RDS, DIVERT, UDP-Lite …) use as well.
#pragma once

#include "families/family.hpp"

namespace tracesock {

// inet_pton(3) for AF_INET, in a third of its instructions: four decimal numbers below 256 with a
// dot between them, none with a zero before it, and nothing else.
bool parse_inet(const char* text, in_addr& out) noexcept;

// inet_ntop(3) for AF_INET, without its printing by format.
// `text` has room for INET_ADDRSTRLEN + 1 characters.
void print_inet(const in_addr& address, char* text) noexcept;

bool encode_inet(Context& context, Object* object, Address& out);
Object* decode_inet(Context& context, const sockaddr& address, socklen_t length);

extern const Family inet_family;

}  // namespace tracesock
