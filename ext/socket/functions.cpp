// The module's functions that concern sockets themselves.
#include "resolver/functions.hpp"
#include "socket/bindings.hpp"
#include "socket/methods.hpp"

namespace nb = nanobind;

namespace tracesock {
namespace {

using resolver::check_unusual_call;
using resolver::Convention;

PyObject* get_default_timeout(PyObject*, PyObject* const*, Py_ssize_t count,
                              PyObject* names) noexcept {
    if ((count != 0 || names != nullptr) &&
        !check_unusual_call("getdefaulttimeout", Convention::object, 0, count, names))
        return nullptr;
    const Interpreter* own = interpreter();
    return own != nullptr ? timeout_object(own->default_timeout) : nullptr;
}

PyObject* set_default_timeout(PyObject*, PyObject* const* arguments, Py_ssize_t count,
                              PyObject* names) noexcept {
    if ((count != 1 || names != nullptr) &&
        !check_unusual_call("setdefaulttimeout", Convention::object, 1, count, names))
        return nullptr;
    Interpreter* own = interpreter();
    std::int64_t timeout = no_timeout;
    if (own == nullptr || !parse_timeout(arguments[0], timeout)) return nullptr;
    own->default_timeout = timeout;
    Py_RETURN_NONE;
}

// Two connected descriptors; the Python layer makes the objects.
PyObject* make_pair(PyObject*, PyObject* arguments) noexcept {
    int family = AF_UNIX, type = SOCK_STREAM, protocol = 0;
    if (!PyArg_ParseTuple(arguments, "|iii:socketpair", &family, &type, &protocol)) return nullptr;
    sys::Descriptor pair[2];
    int result = 0;
    {
        Unlocked unlocked;
        result = sys::open_pair(family, type, protocol, pair);
    }
    if (result < 0) return set_os_error();
    UniqueDescriptor first(pair[0]);
    UniqueDescriptor second(pair[1]);
    PyObject* numbers = Py_BuildValue("(ii)", pair[0], pair[1]);
    if (numbers != nullptr) {
        first.release();
        second.release();
    }
    return numbers;
}

using FastFunction = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*) noexcept;

PyCFunction fast(FastFunction function) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef functions[] = {
    {"getdefaulttimeout", fast(get_default_timeout), METH_FASTCALL | METH_KEYWORDS,
     "getdefaulttimeout() -> timeout\n\nThe timeout in seconds of new sockets; None: none."},
    {"setdefaulttimeout", fast(set_default_timeout), METH_FASTCALL | METH_KEYWORDS,
     "setdefaulttimeout(timeout)\n\nSet the timeout in seconds of new sockets; None: none."},
    {"socketpair", make_pair, METH_VARARGS,
     "socketpair([family[, type[, proto]]]) -> (descriptor, descriptor)\n\nSee socketpair(2)."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void bind_functions(nb::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), functions) < 0) throw nb::python_error();
}

}  // namespace tracesock
