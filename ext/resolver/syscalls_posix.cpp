#include "resolver/system.hpp"

#if !TRACESOCK_WINDOWS

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

namespace tracesock::sys {
namespace {

int copy_entry(const hostent& from, HostEntry& to) {
    const auto size = static_cast<std::size_t>(from.h_length);
    if (size > sizeof(in6_addr)) return NO_RECOVERY;
    to.family = from.h_addrtype;
    to.name = from.h_name;
    if (from.h_aliases != nullptr)
        for (char** alias = from.h_aliases; *alias != nullptr; ++alias)
            to.aliases.emplace_back(*alias);
    for (char** address = from.h_addr_list; *address != nullptr; ++address)
        std::memcpy(to.addresses.emplace_back().data(), *address, size);
    return 0;
}

#if TRACESOCK_LINUX || TRACESOCK_FREEBSD

// The reentrant forms take a buffer for the answer and say ERANGE where it was too small.
constexpr std::size_t first_buffer = 2048;
constexpr std::size_t largest_buffer = std::size_t{1} << 22;

template <class Call>
auto with_buffer(Call&& call) {
    std::vector<char> buffer(first_buffer);
    for (;;) {
        auto [error, answer] = call(buffer.data(), buffer.size());
        if (error != ERANGE || buffer.size() >= largest_buffer)
            return std::pair(std::move(buffer), error == 0 ? answer : nullptr);
        buffer.resize(buffer.size() * 4);
    }
}

template <class Call>
int find_host(HostEntry& entry, Call&& call) {
    hostent storage{};
    int host_error = NETDB_INTERNAL;
    const auto [buffer, answer] = with_buffer([&](char* data, std::size_t size) {
        hostent* found = nullptr;
        const int error = call(&storage, data, size, &found, &host_error);
        return std::pair(error, found);
    });
    return answer != nullptr ? copy_entry(*answer, entry) : host_error;
}

template <class Entry, class Call, class Read>
auto find_entry(Call&& call, Read&& read) -> std::optional<decltype(read(std::declval<Entry&>()))> {
    Entry storage{};
    const auto [buffer, answer] = with_buffer([&](char* data, std::size_t size) {
        Entry* found = nullptr;
        const int error = call(&storage, data, size, &found);
        return std::pair(error, found);
    });
    if (answer == nullptr) return std::nullopt;
    return read(*answer);
}

#else

// Without reentrant forms: one look-up at a time, and the answer is copied before the next.
std::mutex netdb;

template <class Call>
int find_host(HostEntry& entry, Call&& call) {
    const std::lock_guard lock(netdb);
    const hostent* found = call();
    return found != nullptr ? copy_entry(*found, entry) : h_errno;
}

template <class Entry, class Call, class Read>
auto find_entry(Call&& call, Read&& read) -> std::optional<decltype(read(std::declval<Entry&>()))> {
    const std::lock_guard lock(netdb);
    Entry* found = call();
    if (found == nullptr) return std::nullopt;
    return read(*found);
}

#endif

int port_of(const servent& entry) {
    return ntohs(static_cast<std::uint16_t>(entry.s_port));
}
std::string name_of(const servent& entry) {
    return entry.s_name;
}
int number_of(const protoent& entry) {
    return entry.p_proto;
}

}  // namespace

#if TRACESOCK_LINUX || TRACESOCK_FREEBSD

int host_by_name(const char* name, HostEntry& entry) {
    return find_host(entry, [=](auto... out) { return gethostbyname_r(name, out...); });
}

int host_by_address(const void* address, socklen_t size, int family, HostEntry& entry) {
    return find_host(entry,
                     [=](auto... out) { return gethostbyaddr_r(address, size, family, out...); });
}

std::optional<int> service_port(const char* name, const char* protocol) {
    return find_entry<servent>([=](auto... out) { return getservbyname_r(name, protocol, out...); },
                               port_of);
}

std::optional<std::string> service_name(int port, const char* protocol) {
    const int number = htons(static_cast<std::uint16_t>(port));
    return find_entry<servent>(
        [=](auto... out) { return getservbyport_r(number, protocol, out...); }, name_of);
}

std::optional<int> protocol_number(const char* name) {
    return find_entry<protoent>([=](auto... out) { return getprotobyname_r(name, out...); },
                                number_of);
}

#else

int host_by_name(const char* name, HostEntry& entry) {
    return find_host(entry, [=] { return gethostbyname(name); });
}

int host_by_address(const void* address, socklen_t size, int family, HostEntry& entry) {
    return find_host(entry, [=] { return gethostbyaddr(address, size, family); });
}

std::optional<int> service_port(const char* name, const char* protocol) {
    return find_entry<servent>([=] { return getservbyname(name, protocol); }, port_of);
}

std::optional<std::string> service_name(int port, const char* protocol) {
    const int number = htons(static_cast<std::uint16_t>(port));
    return find_entry<servent>([=] { return getservbyport(number, protocol); }, name_of);
}

std::optional<int> protocol_number(const char* name) {
    return find_entry<protoent>([=] { return getprotobyname(name); }, number_of);
}

#endif

const char* host_error_text(int error) noexcept {
    return hstrerror(error);
}

bool parse_inet(const char* text, in_addr& out) noexcept {
    return inet_aton(text, &out) != 0;
}

bool interfaces(std::vector<Interface>& out) {
    struct Free {
        void operator()(struct if_nameindex* list) const noexcept { if_freenameindex(list); }
    };
    const std::unique_ptr<struct if_nameindex, Free> list(if_nameindex());
    if (list == nullptr) return false;
    for (const struct if_nameindex* entry = list.get(); entry->if_index != 0; ++entry)
        out.push_back({entry->if_index, entry->if_name});
    return true;
}

unsigned interface_index(const char* name) noexcept {
    return if_nametoindex(name);
}

const char* interface_name(unsigned index, char* name) noexcept {
    return if_indextoname(index, name);
}

bool host_name(std::string& out) {
    // POSIX: at most 255 bytes. A name that was cut need not end in a NUL.
    char buffer[1024];
    if (gethostname(buffer, sizeof buffer - 1) != 0) return false;
    buffer[sizeof buffer - 1] = '\0';
    out = buffer;
    return true;
}

bool set_host_name(std::string_view name) noexcept {
#if TRACESOCK_LINUX
    return sethostname(name.data(), name.size()) == 0;
#else
    return sethostname(name.data(), static_cast<int>(name.size())) == 0;
#endif
}

}  // namespace tracesock::sys

#endif
