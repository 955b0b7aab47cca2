// Timeout arguments: seconds as None, an int, a float or anything with __index__, rounded away
// from zero to whole nanoseconds, with the running interpreter's error texts.
#include <cmath>
#include <limits>

#include "socket/methods.hpp"

namespace tracesock {
namespace {

constexpr std::int64_t second = 1'000'000'000;

// The interpreter's own refusal of a limit that it cannot hold, of an int or of a float; always
// false. Its words changed in patch releases, so it is asked: by an object without a descriptor.
bool out_of_range(bool of_float) noexcept {
    Interpreter* own = interpreter();
    if (own == nullptr) return false;
    PyTypeObject* base = own->native_type->tp_base;
    const Ref none(PyTuple_New(0));
    const Ref shell(none ? base->tp_new(base, none.get(), nullptr) : nullptr);
    const Ref largest(of_float ? PyFloat_FromDouble(std::numeric_limits<double>::max())
                               : PyLong_FromLongLong(std::numeric_limits<long long>::max()));
    if (!shell || !largest) return false;
    PyObject* arguments[] = {shell.get(), largest.get()};
    const Ref accepted(PyObject_Vectorcall(own->base_settimeout, arguments, 2, nullptr));
    if (accepted || PyErr_ExceptionMatches(PyExc_OSError))
        PyErr_SetString(PyExc_OverflowError, "timestamp out of range for C PyTime_t");
    return false;
}

bool from_float(double seconds, std::int64_t& timeout) noexcept {
    if (std::isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "Invalid value NaN (not a number)");
        return false;
    }
    // volatile, as the interpreter has it: no extended precision may round differently.
    volatile double nanoseconds = seconds * static_cast<double>(second);
    nanoseconds = nanoseconds >= 0 ? std::ceil(nanoseconds) : std::floor(nanoseconds);
    constexpr double limit = 9223372036854775808.0;  // 2**63
    if (!(-limit <= nanoseconds && nanoseconds < limit)) return out_of_range(true);
    timeout = static_cast<std::int64_t>(nanoseconds);
    return true;
}

bool from_integer(PyObject* value, std::int64_t& timeout) noexcept {
    const long long seconds = PyLong_AsLongLong(value);
    if (seconds == -1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError)) return out_of_range(false);
#if PY_VERSION_HEX >= 0x030E0000
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError,
                         "'%T' object cannot be interpreted as an integer or float", value);
#endif
        return false;
    }
    if (__builtin_mul_overflow(static_cast<std::int64_t>(seconds), second, &timeout))
        return out_of_range(false);
    return true;
}

}  // namespace

bool parse_timeout(PyObject* value, std::int64_t& timeout) noexcept {
    if (value == Py_None) {
        timeout = no_timeout;
        return true;
    }
    if (!(PyFloat_Check(value) ? from_float(PyFloat_AsDouble(value), timeout)
                               : from_integer(value, timeout)))
        return false;
    if (timeout < 0) {
        PyErr_SetString(PyExc_ValueError, "Timeout value out of range");
        return false;
    }
    return true;
}

PyObject* timeout_object(std::int64_t timeout) noexcept {
    if (timeout < 0) Py_RETURN_NONE;
    // Whole seconds first: a large count of nanoseconds is not exact as a double.
    return PyFloat_FromDouble(timeout % second == 0 ? static_cast<double>(timeout / second)
                                                    : static_cast<double>(timeout) / second);
}

}  // namespace tracesock
