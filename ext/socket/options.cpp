// Options and modes.
#include <climits>
#include <cstring>

#include "audit/audit.hpp"
#include "recorder/recorder.hpp"
#include "socket/methods.hpp"

namespace tracesock {
namespace {

constexpr int longest_option = 1024;

// The descriptor's mode, as the socket's timeout has it now: 0, or an errno.
int apply_mode(Socket& socket) noexcept {
    SharedHandle::Lease lease(socket.handle);
    const bool blocks = socket.timeout.load(std::memory_order_relaxed) < 0;
    return sys::set_blocking(lease.get(), blocks) == 0 ? 0 : errno;
}

bool set_timeout(PyObject* self, std::int64_t timeout) noexcept {
    Socket& socket = state_of(self);
    // The value and the mode belong together.
    const Exclusive exclusive(self);
    // The value first, as CPython does: it stands even where the descriptor refuses.
    socket.timeout.store(timeout, std::memory_order_relaxed);
    if (socket.filled) {
        Ref value(timeout_object(timeout));
        if (!value || !mirror_settimeout(self, value.get())) return false;
        // The base gives all locks up while it sets the mode: another timeout, which another thread
        // has set meanwhile, may have got its mode sooner.
        if (socket.timeout.load(std::memory_order_relaxed) != timeout) apply_mode(socket);
        return true;
    }
    const int error = apply_mode(socket);
    if (error != 0) set_os_error(error);
    return error == 0;
}

PyObject* set_option(Socket& socket, int level, int option, const void* value,
                     socklen_t size) noexcept {
    SharedHandle::Lease lease(socket.handle);
    if (::setsockopt(lease.get(), level, option, value, size) < 0) return set_os_error();
    Py_RETURN_NONE;
}

}  // namespace

PyObject* socket_settimeout(PyObject* self, PyObject* value) noexcept {
    std::int64_t timeout = no_timeout;
    if (!parse_timeout(value, timeout) || !set_timeout(self, timeout)) return nullptr;
    Py_RETURN_NONE;
}

PyObject* socket_gettimeout(PyObject* self, PyObject*) noexcept {
    return timeout_object(state_of(self).timeout.load(std::memory_order_relaxed));
}

PyObject* socket_setblocking(PyObject* self, PyObject* flag) noexcept {
#if PY_VERSION_HEX >= 0x030C0000
    const int blocking = PyObject_IsTrue(flag);
    if (blocking < 0) return nullptr;
#else
    const long blocking = PyLong_AsLong(flag);
    if (blocking == -1 && PyErr_Occurred()) return nullptr;
#endif
    if (!set_timeout(self, blocking != 0 ? no_timeout : 0)) return nullptr;
    Py_RETURN_NONE;
}

PyObject* socket_getblocking(PyObject* self, PyObject*) noexcept {
    return PyBool_FromLong(state_of(self).timeout.load(std::memory_order_relaxed) != 0);
}

PyObject* socket_getsockopt(PyObject* self, PyObject* arguments) noexcept {
    int level = 0, option = 0, size = 0;
    if (!PyArg_ParseTuple(arguments, "ii|i:getsockopt", &level, &option, &size)) return nullptr;
    Socket& socket = state_of(self);
    const bool wide = (socket.row->flags & options_are_64_bit) != 0;
    SharedHandle::Lease lease(socket.handle);
    if (size == 0) {
        std::uint64_t number = 0;
        socklen_t length = wide ? sizeof number : sizeof(int);
        if (::getsockopt(lease.get(), level, option, &number, &length) < 0) return set_os_error();
        if (wide) return PyLong_FromUnsignedLongLong(number);
        int narrow = 0;
        std::memcpy(&narrow, &number, sizeof narrow);
        if (level == SOL_SOCKET && option == SO_ERROR && recorder::active() != 0)
            recorder::pending_result(socket, narrow);
        if (level == SOL_SOCKET && option == SO_ERROR && audit::watched() != 0)
            audit::pending_result(socket, narrow);
        return PyLong_FromLong(narrow);
    }
    if (wide) {
        PyErr_SetString(PyExc_OSError, "getsockopt string buffer not allowed");
        return nullptr;
    }
    if (size < 0 || size > longest_option) {
        PyErr_SetString(PyExc_OSError, "getsockopt buflen out of range");
        return nullptr;
    }
    char value[longest_option];
    socklen_t length = static_cast<socklen_t>(size);
    if (::getsockopt(lease.get(), level, option, value, &length) < 0) return set_os_error();
    // The kernel may report more than it wrote.
    if (length > static_cast<socklen_t>(size)) length = static_cast<socklen_t>(size);
    if (level == SOL_SOCKET && option == SO_ERROR && length >= sizeof(int)) {
        int error = 0;
        std::memcpy(&error, value, sizeof error);
        if (recorder::active() != 0) recorder::pending_result(socket, error);
        if (audit::watched() != 0) audit::pending_result(socket, error);
    }
    return PyBytes_FromStringAndSize(value, static_cast<Py_ssize_t>(length));
}

PyObject* socket_setsockopt(PyObject* self, PyObject* arguments) noexcept {
    Socket& socket = state_of(self);
    int level = 0, option = 0;
    if ((socket.row->flags & options_are_64_bit) != 0) {
        std::uint64_t number = 0;
        if (!PyArg_ParseTuple(arguments, "iiK:setsockopt", &level, &option, &number))
            return nullptr;
        return set_option(socket, level, option, &number, sizeof number);
    }
    int number = 0;
    if (PyArg_ParseTuple(arguments, "iii:setsockopt", &level, &option, &number))
        return set_option(socket, level, option, &number, sizeof number);

    PyErr_Clear();
    PyObject* none = nullptr;
    unsigned length = 0;
    if (PyArg_ParseTuple(arguments, "iiO!I:setsockopt", &level, &option, Py_TYPE(Py_None), &none,
                         &length))
        return set_option(socket, level, option, nullptr, static_cast<socklen_t>(length));

    PyErr_Clear();
    Buffer value;
    if (!PyArg_ParseTuple(arguments, "iiy*:setsockopt", &level, &option, value.slot()))
        return nullptr;
    if (value.size() > INT_MAX) {
        PyErr_Format(PyExc_OverflowError, "socket option is larger than %i bytes", INT_MAX);
        return nullptr;
    }
    return set_option(socket, level, option, value.data(), static_cast<socklen_t>(value.size()));
}

}  // namespace tracesock
