// Names and numbers: what turns a host name into an address, and the module's functions for it.
#pragma once

#include <string_view>

#include "families/family.hpp"
#include "socket/python.hpp"

namespace tracesock::resolver {

// Characters of the longest host name that is handed to the IDNA encoder, whose time grows with
// the square of the length. ASCII names never reach its slow part.
inline constexpr Py_ssize_t longest_host = 1024;

// Whether `host` may go to the IDNA encoder: anything but a long str that is not ASCII. False with
// the encoder's own exception (UnicodeError; from 3.13 UnicodeEncodeError).
bool host_fits(PyObject* host);

// Whether `host` asks nobody: an IPv4 or IPv6 address, which is in `out` without its port and zone,
// or "" or "<broadcast>", which leave `out` empty.
bool is_literal(std::string_view host, Address& out) noexcept;

// The first address of `host` in `family` (AF_UNSPEC: any), without a port: "" is the wildcard,
// "<broadcast>" and "255.255.255.255" INADDR_BROADCAST, numeric forms need no look-up. False with
// an exception set (gaierror, OSError). Gives up the lock around a look-up.
bool resolve(const char* host, int family, Address& out);

// socket.gaierror and socket.herror of the standard library, borrowed. Null with an exception set.
PyObject* gaierror();
PyObject* herror();

// Adds the resolver's functions to the module. False with an exception set.
bool add_functions(PyObject* module);

}  // namespace tracesock::resolver
