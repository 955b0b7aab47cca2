// Byte order, packed addresses and the sizes of control messages.
#include <climits>
#include <cstdint>
#include <cstring>

#include "resolver/functions.hpp"
#include "resolver/system.hpp"

namespace tracesock::resolver {
namespace {

// --- byte order: byteorder(3) --------------------------------------------------------------------

#if PY_VERSION_HEX >= 0x030E0000

bool read_number(PyObject* object, const char*, std::uint16_t& out) {
    return read_unsigned(object, "uint16_t", out);
}
bool read_number(PyObject* object, const char*, std::uint32_t& out) {
    return read_unsigned(object, "uint32_t", out);
}

#else

bool read_number(PyObject* object, const char* function, std::uint16_t& out) {
    int value = 0;
#if PY_VERSION_HEX >= 0x030D0000
    value = PyLong_AsInt(object);
    if (value == -1 && PyErr_Occurred() != nullptr) return false;
#else
    if (!PyArg_Parse(object, "i", &value)) return false;
#endif
    if (value < 0) {
        PyErr_Format(PyExc_OverflowError,
                     "%s: can't convert negative Python int to C 16-bit unsigned integer",
                     function);
        return false;
    }
    if (value > UINT16_MAX) {
        PyErr_Format(PyExc_OverflowError,
                     "%s: Python int too large to convert to C 16-bit unsigned integer", function);
        return false;
    }
    out = static_cast<std::uint16_t>(value);
    return true;
}

bool read_number(PyObject* object, const char*, std::uint32_t& out) {
    if (!PyIndex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "expected int, %s found", Py_TYPE(object)->tp_name);
        return false;
    }
    const Ref number(PyLong_Check(object) ? Py_NewRef(object) : PyNumber_Index(object));
    if (!number) return false;
    const unsigned long value = PyLong_AsUnsignedLong(number.get());
    if (value == static_cast<unsigned long>(-1) && PyErr_Occurred() != nullptr) return false;
    if (value > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "int larger than 32 bits");
        return false;
    }
    out = static_cast<std::uint32_t>(value);
    return true;
}

#endif

template <Name name, class Unsigned, Unsigned (*swap)(Unsigned)>
PyObject* swapped(PyObject* object) {
    Unsigned value = 0;
    if (!read_number(object, name.text, value)) return nullptr;
    return PyLong_FromUnsignedLong(swap(value));
}

// ntohs(3) and its like may be macros; these are functions.
std::uint16_t network_to_host(std::uint16_t value) {
    return ntohs(value);
}
std::uint16_t host_to_network(std::uint16_t value) {
    return htons(value);
}
std::uint32_t network_to_host(std::uint32_t value) {
    return ntohl(value);
}
std::uint32_t host_to_network(std::uint32_t value) {
    return htonl(value);
}

// --- packed addresses: inet(3), inet_pton(3), inet_ntop(3) ---------------------------------------

// A str without a NUL, as the "s" of PyArg_Parse reads it; null with an exception set.
const char* text_of(PyObject* object, const char* function) {
    if (!PyUnicode_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s() argument%s must be str, not %.50s", function,
                     object_since_3_13 == Convention::object ? "" : " 1",
                     object == Py_None ? "None" : Py_TYPE(object)->tp_name);
        return nullptr;
    }
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(object, &size);
    if (text != nullptr && std::strlen(text) != static_cast<std::size_t>(size)) {
        PyErr_SetString(PyExc_ValueError, "embedded null character");
        return nullptr;
    }
    return text;
}

PyObject* aton(PyObject* object) {
    const char* text = text_of(object, "inet_aton");
    if (text == nullptr) return nullptr;
    in_addr packed;
    if (!sys::parse_inet(text, packed)) {
        PyErr_SetString(PyExc_OSError, "illegal IP address string passed to inet_aton");
        return nullptr;
    }
    return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(&packed), sizeof packed);
}

PyObject* to_text(int family, const void* packed) {
    char text[INET6_ADDRSTRLEN];
    if (inet_ntop(family, packed, text, sizeof text) == nullptr) return set_os_error();
    return PyUnicode_FromString(text);
}

PyObject* ntoa(PyObject* object) {
    Buffer packed;
    if (!packed.acquire(object, PyBUF_SIMPLE)) return nullptr;
    if (packed.size() != sizeof(in_addr)) {
        PyErr_SetString(PyExc_OSError, "packed IP wrong length for inet_ntoa");
        return nullptr;
    }
    return to_text(AF_INET, packed.data());
}

PyObject* pton(PyObject* arguments) {
    int family = 0;
    const char* text = nullptr;
    if (!PyArg_ParseTuple(arguments, "is:inet_pton", &family, &text)) return nullptr;
    char packed[sizeof(in6_addr)];
    const int parsed = inet_pton(family, text, packed);
    if (parsed < 0) return set_os_error();
    if (parsed == 0) {
        PyErr_SetString(PyExc_OSError, "illegal IP address string passed to inet_pton");
        return nullptr;
    }
    if (family == AF_INET) return PyBytes_FromStringAndSize(packed, sizeof(in_addr));
    if (family == AF_INET6) return PyBytes_FromStringAndSize(packed, sizeof(in6_addr));
    PyErr_SetString(PyExc_OSError, "unknown address family");
    return nullptr;
}

PyObject* ntop(PyObject* arguments) {
    int family = 0;
    Buffer packed;
    if (!PyArg_ParseTuple(arguments, "iy*:inet_ntop", &family, packed.slot())) return nullptr;
    Py_ssize_t wanted;
    if (family == AF_INET) {
        wanted = sizeof(in_addr);
    } else if (family == AF_INET6) {
        wanted = sizeof(in6_addr);
    } else {
        PyErr_Format(PyExc_ValueError, "unknown address family %d", family);
        return nullptr;
    }
    if (packed.size() != wanted) {
        PyErr_SetString(PyExc_ValueError, "invalid length of packed IP address string");
        return nullptr;
    }
    return to_text(family, packed.data());
}

// --- control messages: cmsg(3) -------------------------------------------------------------------

// The largest length that recvmsg(2) and sendmsg(2) take everywhere, whatever socklen_t is.
constexpr std::size_t largest_control = INT_MAX;

std::size_t control_length(std::size_t data) {
    return CMSG_LEN(data);
}
std::size_t control_space(std::size_t data) {
    return CMSG_SPACE(data);
}

// `smallest` is what is added at most: header and padding before and after the data.
PyObject* control_size(PyObject* arguments, const char* format, const char* out_of_range,
                       std::size_t smallest, std::size_t (*size)(std::size_t)) {
    Py_ssize_t length = 0;
    if (!PyArg_ParseTuple(arguments, format, &length)) return nullptr;
    if (length < 0 || static_cast<std::size_t>(length) > largest_control - smallest ||
        size(static_cast<std::size_t>(length)) > largest_control) {
        PyErr_SetString(PyExc_OverflowError, out_of_range);
        return nullptr;
    }
    return PyLong_FromSize_t(size(static_cast<std::size_t>(length)));
}

PyObject* cmsg_len(PyObject* arguments) {
    return control_size(arguments, "n:CMSG_LEN", "CMSG_LEN() argument out of range",
                        control_length(0), control_length);
}

PyObject* cmsg_space(PyObject* arguments) {
    return control_size(arguments, "n:CMSG_SPACE", "CMSG_SPACE() argument out of range",
                        control_space(1), control_space);
}

}  // namespace

bool add_bytes(PyObject* module) {
    static PyMethodDef methods[] = {
        method("ntohs",
               one_argument<"ntohs", object_since_3_13,
                            swapped<"ntohs", std::uint16_t, network_to_host>>,
               "ntohs($module, integer, /)\n--\n\n"
               "Convert a 16-bit unsigned int from network to host byte order.\n\n"
               "Raises OverflowError, and from 3.14 ValueError for a negative int. byteorder(3)."),
        method("ntohl",
               one_argument<"ntohl", Convention::object,
                            swapped<"ntohl", std::uint32_t, network_to_host>>,
               "ntohl($module, integer, /)\n--\n\n"
               "Convert a 32-bit unsigned int from network to host byte order.\n\n"
               "Raises OverflowError, and from 3.14 ValueError for a negative int. byteorder(3)."),
        method("htons",
               one_argument<"htons", object_since_3_13,
                            swapped<"htons", std::uint16_t, host_to_network>>,
               "htons($module, integer, /)\n--\n\n"
               "Convert a 16-bit unsigned int from host to network byte order.\n\n"
               "Raises OverflowError, and from 3.14 ValueError for a negative int. byteorder(3)."),
        method("htonl",
               one_argument<"htonl", Convention::object,
                            swapped<"htonl", std::uint32_t, host_to_network>>,
               "htonl($module, integer, /)\n--\n\n"
               "Convert a 32-bit unsigned int from host to network byte order.\n\n"
               "Raises OverflowError, and from 3.14 ValueError for a negative int. byteorder(3)."),
        method("inet_aton", one_argument<"inet_aton", object_since_3_13, aton>,
               "inet_aton($module, ip_addr, /)\n--\n\n"
               "Pack an IPv4 address (str, also with fewer than three dots) into 4 bytes.\n\n"
               "Raises OSError where it is none. inet(3)."),
        method("inet_ntoa", one_argument<"inet_ntoa", object_since_3_13, ntoa>,
               "inet_ntoa($module, packed_ip, /)\n--\n\n"
               "Return a packed IPv4 address (bytes-like, 4 bytes) as str.\n\n"
               "Raises OSError for another length. inet(3)."),
        method("inet_pton", tuple_of_arguments<pton>,
               "inet_pton($module, address_family, ip_string, /)\n--\n\n"
               "Pack an address of AF_INET or AF_INET6 (str) into 4 or 16 bytes.\n\n"
               "Raises OSError where it is none, or the family another. inet_pton(3)."),
        method("inet_ntop", tuple_of_arguments<ntop>,
               "inet_ntop($module, address_family, packed_ip, /)\n--\n\n"
               "Return a packed address of AF_INET or AF_INET6 (bytes-like) as str.\n\n"
               "Raises ValueError for another family or a wrong length. inet_ntop(3)."),
        method("CMSG_LEN", tuple_of_arguments<cmsg_len>,
               "CMSG_LEN($module, length, /)\n--\n\n"
               "Return the bytes of a control message with `length` bytes of data, without padding "
               "after them.\n\nRaises OverflowError out of range. cmsg(3), RFC 3542 section 20."),
        method("CMSG_SPACE", tuple_of_arguments<cmsg_space>,
               "CMSG_SPACE($module, length, /)\n--\n\n"
               "Return the bytes that recvmsg() needs for a control message with `length` bytes of "
               "data, with padding.\n\nRaises OverflowError out of range. cmsg(3), RFC 3542 "
               "section 20."),
        {nullptr, nullptr, 0, nullptr},
    };
    return PyModule_AddFunctions(module, methods) == 0;
}

}  // namespace tracesock::resolver
