// How the module's functions are bound: the argument count and keyword errors are those of the
// running interpreter's own function, which differ by its calling convention there.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "socket/python.hpp"

namespace tracesock::resolver {

// What the interpreter's own function is: METH_VARARGS, or METH_O and METH_NOARGS.
enum class Convention : std::uint8_t { tuple, object };

// Functions that Argument Clinic took over in 3.13.
inline constexpr Convention object_since_3_13 =
    PY_VERSION_HEX >= 0x030D0000 ? Convention::object : Convention::tuple;

template <std::size_t size>
struct Name {
    char text[size];
    consteval Name(const char (&literal)[size]) { std::copy_n(literal, size, text); }
};

// TypeErrors for a call with keywords, or with a number of arguments other than `wanted` (0 or 1).
bool check_unusual_call(const char* name, Convention convention, Py_ssize_t wanted,
                        Py_ssize_t given, PyObject* keywords) noexcept;

inline bool check_call(const char* name, Convention convention, Py_ssize_t wanted, Py_ssize_t given,
                       PyObject* keywords) noexcept {
    return (given == wanted && keywords == nullptr) ||
           check_unusual_call(name, convention, wanted, given, keywords);
}

template <Name name, Convention convention, PyObject* (*body)(PyObject*)>
PyObject* one_argument(PyObject*, PyObject* const* arguments, Py_ssize_t count,
                       PyObject* keywords) noexcept {
    if (!check_call(name.text, convention, 1, count, keywords)) return nullptr;
    return guarded<PyObject*>(nullptr, [=] { return body(arguments[0]); });
}

template <Name name, PyObject* (*body)()>
PyObject* no_argument(PyObject*, PyObject* const*, Py_ssize_t count, PyObject* keywords) noexcept {
    if (!check_call(name.text, Convention::object, 0, count, keywords)) return nullptr;
    return guarded<PyObject*>(nullptr, [] { return body(); });
}

// For functions that parse a tuple themselves.
template <PyObject* (*body)(PyObject*)>
PyObject* tuple_of_arguments(PyObject*, PyObject* arguments) noexcept {
    return guarded<PyObject*>(nullptr, [=] { return body(arguments); });
}

using FastFunction = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*);
using TupleFunction = PyObject* (*)(PyObject*, PyObject*);
using KeywordFunction = PyObject* (*)(PyObject*, PyObject*, PyObject*);

inline PyMethodDef method(const char* name, FastFunction function, const char* doc) noexcept {
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)),
            METH_FASTCALL | METH_KEYWORDS, doc};
}
inline PyMethodDef method(const char* name, TupleFunction function, const char* doc) noexcept {
    return {name, function, METH_VARARGS, doc};
}
inline PyMethodDef method(const char* name, KeywordFunction function, const char* doc) noexcept {
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)),
            METH_VARARGS | METH_KEYWORDS, doc};
}

#if PY_VERSION_HEX >= 0x030E0000
// An unsigned integer as 3.14 reads it; `type` is the C type in the error text.
template <class Unsigned>
bool read_unsigned(PyObject* object, const char* type, Unsigned& out) noexcept {
    const Py_ssize_t size = PyLong_AsNativeBytes(
        object, &out, sizeof out,
        Py_ASNATIVEBYTES_NATIVE_ENDIAN | Py_ASNATIVEBYTES_ALLOW_INDEX |
            Py_ASNATIVEBYTES_REJECT_NEGATIVE | Py_ASNATIVEBYTES_UNSIGNED_BUFFER);
    if (size < 0) return false;
    if (static_cast<std::size_t>(size) <= sizeof out) return true;
    PyErr_Format(PyExc_OverflowError, "Python int too large for C %s", type);
    return false;
}
#endif

// Each file's functions. False with an exception set.
bool add_addrinfo(PyObject* module);
bool add_netdb(PyObject* module);
bool add_interfaces(PyObject* module);
bool add_bytes(PyObject* module);
bool add_descriptors(PyObject* module);
bool add_builtin(PyObject* module);

}  // namespace tracesock::resolver
