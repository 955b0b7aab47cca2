// Subscriptions to the documented events of the process: `socket.*`, whoever raises them.
#pragma once

#include "audit/audit.hpp"

#include <optional>
#include <string_view>
#include <vector>

namespace tracesock::audit {

// The documented events, in the order of the bits of an event set.
inline constexpr const char* documented_events[] = {
    "socket.connect",       "socket.sendto",      "socket.sendmsg",       "socket.__new__",
    "socket.bind",          "socket.getaddrinfo", "socket.getnameinfo",   "socket.gethostbyname",
    "socket.gethostbyaddr", "socket.gethostname", "socket.getservbyname", "socket.getservbyport",
    "socket.sethostname",
};
inline constexpr std::size_t documented_count =
    sizeof documented_events / sizeof *documented_events;
// The bit of any other event that begins with "socket.".
inline constexpr unsigned other_event = 1u << documented_count;

// Whom an event may be about; empty: anybody.
struct PeerFilter {
    std::vector<Prefix> prefixes;
    std::vector<std::string> hosts;  // as Rule::hosts
};

// Calls `callback(event, arguments)` for each event of the set. An exception from it stops the
// call that raised the event. Returns the subscription's number; throws nb::python_error, and
// where an earlier hook keeps this one out, RuntimeError.
std::uint64_t subscribe(PyObject* callback, unsigned events, PeerFilter peers);
void unsubscribe(std::uint64_t number);
std::size_t subscriptions() noexcept;

// The hook that hears the process's events, where it is not there yet. Throws nb::python_error, and
// where an earlier hook keeps this one out, RuntimeError.
void install_hook();

// Whether it is known that nobody waits for an event of this interpreter's about a peer: the hook
// above is the only one, and no subscription wants it. To raise it would do nothing.
bool unheard(const char* event, PyObject* peer) noexcept;

// The text of a host argument: str or bytes, alone or first in a tuple. No exception is left.
std::string_view host_text(PyObject* argument) noexcept;
// The address that a text denotes without a look-up, as read_peer() has it.
bool numeric(std::string_view text, Ip& ip) noexcept;

}  // namespace tracesock::audit
