// The name databases by Winsock, interfaces by the IP helper library. Winsock's answers live in
// memory of the calling thread, and are copied before it can call again.
#include "resolver/system.hpp"

#if TRACESOCK_WINDOWS

#include <iphlpapi.h>
#include <windows.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace tracesock::sys {
namespace {

bool fail(int error) {
    errno = error;
    return false;
}

bool to_utf8(std::wstring_view wide, std::string& out) {
    const int length = static_cast<int>(wide.size());
    const int size =
        WideCharToMultiByte(CP_UTF8, 0, wide.data(), length, nullptr, 0, nullptr, nullptr);
    if (size <= 0 && length > 0) return fail(EILSEQ);
    out.resize(static_cast<std::size_t>(size));
    WideCharToMultiByte(CP_UTF8, 0, wide.data(), length, out.data(), size, nullptr, nullptr);
    return true;
}

int copy_entry(const hostent* from, HostEntry& to) {
    if (from == nullptr) return WSAGetLastError();
    const auto size = static_cast<std::size_t>(from->h_length);
    if (size > sizeof(in6_addr)) return NO_RECOVERY;
    to.family = from->h_addrtype;
    to.name = from->h_name;
    if (from->h_aliases != nullptr)
        for (char** alias = from->h_aliases; *alias != nullptr; ++alias)
            to.aliases.emplace_back(*alias);
    for (char** address = from->h_addr_list; *address != nullptr; ++address)
        std::memcpy(to.addresses.emplace_back().data(), *address, size);
    return 0;
}

}  // namespace

int host_by_name(const char* name, HostEntry& entry) {
    return copy_entry(gethostbyname(name), entry);
}

int host_by_address(const void* address, socklen_t size, int family, HostEntry& entry) {
    return copy_entry(gethostbyaddr(static_cast<const char*>(address), size, family), entry);
}

const char* host_error_text(int) noexcept {
    return "host not found";
}

std::optional<int> service_port(const char* name, const char* protocol) {
    const servent* found = getservbyname(name, protocol);
    if (found == nullptr) return std::nullopt;
    return ntohs(static_cast<std::uint16_t>(found->s_port));
}

std::optional<std::string> service_name(int port, const char* protocol) {
    const servent* found = getservbyport(htons(static_cast<std::uint16_t>(port)), protocol);
    if (found == nullptr) return std::nullopt;
    return found->s_name;
}

std::optional<int> protocol_number(const char* name) {
    const protoent* found = getprotobyname(name);
    if (found == nullptr) return std::nullopt;
    return found->p_proto;
}

bool parse_inet(const char* text, in_addr& out) noexcept {
    // inet_addr has one value for an error and for the broadcast address.
    out.s_addr = inet_addr(text);
    return out.s_addr != INADDR_NONE || std::strcmp(text, "255.255.255.255") == 0;
}

bool interfaces(std::vector<Interface>& out) {
    struct Free {
        void operator()(MIB_IF_TABLE2* table) const noexcept { FreeMibTable(table); }
    };
    MIB_IF_TABLE2* filled = nullptr;
    if (GetIfTable2Ex(MibIfTableRaw, &filled) != NO_ERROR) return fail(ENOMEM);
    const std::unique_ptr<MIB_IF_TABLE2, Free> table(filled);
    for (ULONG i = 0; i < table->NumEntries; ++i) {
        const MIB_IF_ROW2& row = table->Table[i];
        wchar_t wide[NDIS_IF_MAX_STRING_SIZE + 1];
        if (ConvertInterfaceLuidToNameW(&row.InterfaceLuid, wide, std::size(wide)) != NO_ERROR)
            return fail(ENODEV);
        Interface& entry = out.emplace_back();
        entry.index = row.InterfaceIndex;
        if (!to_utf8(wide, entry.name)) return false;
    }
    return true;
}

unsigned interface_index(const char* name) noexcept {
    return if_nametoindex(name);
}

const char* interface_name(unsigned index, char* name) noexcept {
    return if_indextoname(index, name);
}

bool host_name(std::string& out) {
    // gethostname() would give the ANSI form, and cut it.
    DWORD size = 0;
    GetComputerNameExW(ComputerNamePhysicalDnsHostname, nullptr, &size);
    std::wstring wide(size, L'\0');
    if (!GetComputerNameExW(ComputerNamePhysicalDnsHostname, wide.data(), &size))
        return fail(ENOSYS);
    wide.resize(size);
    return to_utf8(wide, out);
}

bool set_host_name(std::string_view) noexcept {
    return fail(ENOSYS);
}

}  // namespace tracesock::sys

#endif
