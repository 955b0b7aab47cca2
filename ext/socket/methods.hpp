// The methods of _native.Socket, by the file that holds them. Each sets an exception and returns
// null (or -1) on failure; none lets a C++ exception out.
#pragma once

#include "socket/state.hpp"

namespace tracesock {

using FastArguments = PyObject* const*;

// transfer.cpp
PyObject* socket_send(PyObject* self, FastArguments arguments, Py_ssize_t count) noexcept;
PyObject* socket_sendall(PyObject* self, FastArguments arguments, Py_ssize_t count) noexcept;
PyObject* socket_sendto(PyObject* self, FastArguments arguments, Py_ssize_t count) noexcept;
PyObject* socket_sendfile(PyObject* self, PyObject* arguments) noexcept;
PyObject* socket_recv(PyObject* self, FastArguments arguments, Py_ssize_t count) noexcept;
PyObject* socket_recvfrom(PyObject* self, FastArguments arguments, Py_ssize_t count) noexcept;
PyObject* socket_recv_into(PyObject* self, FastArguments arguments, Py_ssize_t count,
                           PyObject* names) noexcept;
PyObject* socket_recvfrom_into(PyObject* self, FastArguments arguments, Py_ssize_t count,
                               PyObject* names) noexcept;

// ancillary.cpp
PyObject* socket_recvmsg(PyObject* self, PyObject* arguments) noexcept;
PyObject* socket_recvmsg_into(PyObject* self, PyObject* arguments) noexcept;
PyObject* socket_sendmsg(PyObject* self, PyObject* arguments) noexcept;
PyObject* socket_sendmsg_afalg(PyObject* self, PyObject* arguments, PyObject* names) noexcept;

// batch.cpp
PyObject* socket_send_many(PyObject* self, PyObject* arguments, PyObject* names) noexcept;
PyObject* socket_recv_many(PyObject* self, PyObject* arguments, PyObject* names) noexcept;

// connection.cpp
PyObject* socket_accept(PyObject* self, PyObject*) noexcept;
PyObject* socket_accept_as(PyObject* self, PyObject* cls) noexcept;
PyObject* socket_prepare(PyObject* self, PyObject* arguments) noexcept;
PyObject* socket_bind(PyObject* self, PyObject* address) noexcept;
PyObject* socket_connect(PyObject* self, PyObject* address) noexcept;
PyObject* socket_connect_ex(PyObject* self, PyObject* address) noexcept;
PyObject* socket_listen(PyObject* self, PyObject* arguments) noexcept;
PyObject* socket_shutdown(PyObject* self, PyObject* how) noexcept;
PyObject* socket_getsockname(PyObject* self, PyObject*) noexcept;
PyObject* socket_getpeername(PyObject* self, PyObject*) noexcept;

// options.cpp
PyObject* socket_getsockopt(PyObject* self, PyObject* arguments) noexcept;
PyObject* socket_setsockopt(PyObject* self, PyObject* arguments) noexcept;
PyObject* socket_settimeout(PyObject* self, PyObject* value) noexcept;
PyObject* socket_gettimeout(PyObject* self, PyObject*) noexcept;
PyObject* socket_setblocking(PyObject* self, PyObject* flag) noexcept;
PyObject* socket_getblocking(PyObject* self, PyObject*) noexcept;

// socket_type.cpp
PyObject* socket_stream_begins(PyObject* self, PyObject*) noexcept;
PyObject* socket_stream_ends(PyObject* self, PyObject*) noexcept;
PyObject* socket_may_close(PyObject* self, PyObject*) noexcept;
PyObject* socket_close(PyObject* self, PyObject*) noexcept;
PyObject* socket_detach(PyObject* self, PyObject*) noexcept;
PyObject* socket_fileno(PyObject* self, PyObject*) noexcept;

// The object for a connection that `listener` has accepted: an instance of `cls`, which is the
// socket class, or what a program has put in its place. Takes the descriptor over, also on failure.
Ref make_accepted(const Socket& listener, PyObject* cls, UniqueDescriptor connection,
                  const Address& peer) noexcept;

// Call a method of the base on a filled shell, so that what _ssl reads there stays true.
bool mirror_settimeout(PyObject* self, PyObject* timeout) noexcept;
bool mirror_detach(PyObject* self) noexcept;

// timeouts.cpp
// Nanoseconds of a timeout argument: None is no_timeout. False with the interpreter's own error.
bool parse_timeout(PyObject* value, std::int64_t& timeout) noexcept;
PyObject* timeout_object(std::int64_t timeout) noexcept;

// An argument tuple for PyArg_ParseTuple: the long way of a fast method, taken for unusual
// arguments and for errors.
inline Ref as_tuple(FastArguments arguments, Py_ssize_t count) noexcept {
    Ref tuple(PyTuple_New(count));
    if (tuple)
        for (Py_ssize_t i = 0; i < count; ++i)
            PyTuple_SET_ITEM(tuple.get(), i, Py_NewRef(arguments[i]));
    return tuple;
}

// The items of an iterable as a tuple of its own: converting them runs the caller's code, which may
// change the caller's list. TypeError with the text `refusal` for what is no iterable.
inline Ref snapshot(PyObject* iterable, const char* refusal) noexcept {
    Ref sequence(PySequence_Fast(iterable, refusal));
    return sequence ? Ref(PySequence_Tuple(sequence.get())) : Ref();
}

}  // namespace tracesock
