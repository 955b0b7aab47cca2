// The platform's name databases, interfaces and host name. No Python; nothing here keeps state
// between calls or hands out memory that another thread's call may overwrite.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/syscalls.hpp"

namespace tracesock::sys {

struct HostEntry {
    int family = AF_UNSPEC;
    std::string name;
    std::vector<std::string> aliases;
    std::vector<std::array<unsigned char, sizeof(in6_addr)>> addresses;  // network byte order
};

struct Interface {
    unsigned index;
    std::string name;
};

// gethostbyname(3), IPv4, and gethostbyaddr(3): 0, or a value of h_errno.
int host_by_name(const char* name, HostEntry& entry);
int host_by_address(const void* address, socklen_t size, int family, HostEntry& entry);
// hstrerror(3).
const char* host_error_text(int error) noexcept;

// getservbyname(3), getservbyport(3), getprotobyname(3). Ports in host byte order; a null protocol
// is any.
std::optional<int> service_port(const char* name, const char* protocol);
std::optional<std::string> service_name(int port, const char* protocol);
std::optional<int> protocol_number(const char* name);

// inet_aton(3): all the short and octal forms.
bool parse_inet(const char* text, in_addr& out) noexcept;

// if_nameindex(3): false and errno.
bool interfaces(std::vector<Interface>& out);
// if_nametoindex(3) and if_indextoname(3), `name` having IF_NAMESIZE bytes: 0 or null, and errno
// where the platform sets it.
unsigned interface_index(const char* name) noexcept;
const char* interface_name(unsigned index, char* name) noexcept;

// gethostname(2) and sethostname(2): false and errno.
bool host_name(std::string& out);
bool set_host_name(std::string_view name) noexcept;

}  // namespace tracesock::sys
