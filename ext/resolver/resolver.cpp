#include "resolver/resolver.hpp"

#include "resolver/functions.hpp"
#include "resolver/lookup.hpp"

namespace tracesock::resolver {
namespace {

// A class of the standard library's _socket, borrowed: kept in the interpreter's own dictionary,
// so that each sub-interpreter has its own.
PyObject* stock_class(const char* name, const char* key) {
    PyObject* kept = PyInterpreterState_GetDict(PyInterpreterState_Get());
    if (kept == nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter has no dictionary for extensions");
        return nullptr;
    }
    if (PyObject* found = PyDict_GetItemString(kept, key)) return found;
    const Ref module(PyImport_ImportModule("_socket"));
    if (!module) return nullptr;
    const Ref type(PyObject_GetAttrString(module.get(), name));
    if (!type || PyDict_SetItemString(kept, key, type.get()) < 0) return nullptr;
    return type.get();
}

}  // namespace

PyObject* gaierror() {
    return stock_class("gaierror", "tracesock.gaierror");
}
PyObject* herror() {
    return stock_class("herror", "tracesock.herror");
}

bool host_fits(PyObject* host) {
    if (!PyUnicode_Check(host) || PyUnicode_IS_ASCII(host)) return true;
    const Py_ssize_t length = PyUnicode_GET_LENGTH(host);
    if (length <= longest_host) return true;
    const bool one_label = PyUnicode_FindChar(host, '.', 0, length, 1) < 0;
#if PY_VERSION_HEX >= 0x030D0000
    const Ref error(PyObject_CallFunction(PyExc_UnicodeEncodeError, "sOnns", "idna", host,
                                          Py_ssize_t{0}, length,
                                          one_label ? "label too long" : "host name too long"));
    if (error) PyErr_SetObject(PyExc_UnicodeEncodeError, error.get());
#else
    PyErr_Format(PyExc_UnicodeError,
                 PY_VERSION_HEX >= 0x030C0000
                     ? "%s"
                     : "encoding with 'idna' codec failed (UnicodeError: %s)",
                 one_label ? "label empty or too long" : "host name too long");
#endif
    return false;
}

bool check_unusual_call(const char* name, Convention convention, Py_ssize_t wanted,
                        Py_ssize_t given, PyObject* keywords) noexcept {
    const bool object = convention == Convention::object;
    const char* module = object ? "_socket." : "";
    if (keywords != nullptr && PyTuple_GET_SIZE(keywords) != 0)
        PyErr_Format(PyExc_TypeError, "%s%s() takes no keyword arguments", module, name);
    else if (given == wanted)
        return true;
    else if (wanted == 0)
        PyErr_Format(PyExc_TypeError, "%s%s() takes no arguments (%zd given)", module, name, given);
    else
        PyErr_Format(PyExc_TypeError, "%s%s() takes exactly %s argument (%zd given)", module, name,
                     object ? "one" : "1", given);
    return false;
}

bool add_functions(PyObject* module) {
    return guarded(false, [=] {
        return gaierror() != nullptr && herror() != nullptr && add_lookup_type(module) &&
               add_addrinfo(module) && add_netdb(module) && add_interfaces(module) &&
               add_bytes(module) && add_descriptors(module) && add_builtin(module);
    });
}

}  // namespace tracesock::resolver
