// Names and numbers: what turns a host name into an address, and the module's functions for it.
#pragma once

#include <Python.h>

#include "families/family.hpp"

namespace tracesock::resolver {

// The first address of `host` in `family` (AF_UNSPEC: any), without a port: "" is the wildcard,
// "<broadcast>" and "255.255.255.255" INADDR_BROADCAST, numeric forms need no look-up. False with
// an exception set (gaierror, OSError). Gives up the lock around a look-up.
bool resolve(const char* host, int family, Address& out);

// socket.gaierror and socket.herror of the standard library, borrowed.
PyObject* gaierror();
PyObject* herror();

// Adds the resolver's functions to the module. False with an exception set.
bool add_functions(PyObject* module);

}  // namespace tracesock::resolver
