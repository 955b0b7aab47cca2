// close(2) and dup(2) on a socket's descriptor, given as a number.
#include "core/syscalls.hpp"
#include "resolver/functions.hpp"

namespace tracesock::resolver {
namespace {

// As the interpreter reads a descriptor: what does not fit a C long is an error, and of the rest
// the lower half counts.
bool read_descriptor(PyObject* object, sys::Descriptor& out) {
    const long value = PyLong_AsLong(object);
    if (value == -1 && PyErr_Occurred() != nullptr) return false;
    out = static_cast<sys::Descriptor>(value);
    return true;
}

PyObject* close_function(PyObject* object) {
    sys::Descriptor fd = sys::invalid;
    if (!read_descriptor(object, fd)) return nullptr;
    int result;
    {
        const Unlocked unlocked;
        result = sys::close(fd);
    }
    if (result != 0) return set_os_error();
    Py_RETURN_NONE;
}

PyObject* dup_function(PyObject* object) {
    sys::Descriptor fd = sys::invalid;
    if (!read_descriptor(object, fd)) return nullptr;
    sys::Descriptor copy;
    {
        const Unlocked unlocked;
        copy = sys::duplicate(fd);
    }
    if (copy == sys::invalid) return set_os_error();
    PyObject* result = PyLong_FromLong(copy);
    if (result == nullptr) sys::close(copy);
    return result;
}

}  // namespace

bool add_descriptors(PyObject* module) {
    static PyMethodDef methods[] = {
        method("close", one_argument<"close", Convention::object, close_function>,
               "close($module, fd, /)\n--\n\n"
               "Close a socket's file descriptor (int). Raises OSError; ECONNRESET is ignored. "
               "close(2)."),
        method("dup", one_argument<"dup", Convention::object, dup_function>,
               "dup($module, fd, /)\n--\n\n"
               "Return a new, non-inheritable file descriptor (int) for the same socket.\n\n"
               "Raises OSError. fcntl(2), F_DUPFD_CLOEXEC."),
        {nullptr, nullptr, 0, nullptr},
    };
    return PyModule_AddFunctions(module, methods) == 0;
}

}  // namespace tracesock::resolver
