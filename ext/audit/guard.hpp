// The policy for calls that go past tracesock's own methods: those that the base type makes with a
// socket of tracesock, and where the whole process is guarded, with any socket of the interpreter.
//
// Such a call is known by its audit event, which comes before the system call. Its address is what
// the caller wrote, not what the system call gets: a host name is looked up here a second time, and
// each of its addresses must be allowed.
#pragma once

#include "audit/audit.hpp"

namespace tracesock::audit {

enum class Guard : unsigned char { off, tracesock, process };

// Guards from now on, never less than before. Throws nb::python_error: RuntimeError where an
// earlier audit hook keeps further ones out.
void guard(Guard wanted);

// Raises the event of a call that tracesock makes itself, with the address as the caller wrote it,
// or a prepared one in the form that every hook knows how to read: what is judged is the bytes that
// go into the system call, not this. False with an exception.
bool announce(const char* event, PyObject* self, PyObject* address) noexcept;

// --- for the hook: `event` counts the documented events
// ---------------------------------------------------------------------------------

// Whether the event's call is one that this must judge. Asked once, before anybody else is told.
bool to_be_guarded(std::size_t event, PyObject* arguments) noexcept;
// Whether that call is allowed: false with an exception.
bool guard_allows(std::size_t event, PyObject* arguments) noexcept;

}  // namespace tracesock::audit
