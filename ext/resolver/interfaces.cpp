// Network interfaces by index and by name: if_nameindex(3), if_nametoindex(3).
#include <cerrno>
#include <climits>
#include <vector>

#include "resolver/functions.hpp"
#include "resolver/system.hpp"

namespace tracesock::resolver {
namespace {

PyObject* nameindex() {
    std::vector<sys::Interface> interfaces;
    if (!sys::interfaces(interfaces)) return set_os_error();
    Ref list(PyList_New(0));
    if (!list) return nullptr;
    for (const sys::Interface& interface : interfaces) {
        const Ref name(PyUnicode_DecodeFSDefault(interface.name.c_str()));
        if (!name) return nullptr;
        const Ref item(Py_BuildValue("IO", interface.index, name.get()));
        if (!item || PyList_Append(list.get(), item.get()) < 0) return nullptr;
    }
    return list.release();
}

// Releases of 3.13 and 3.14 began to tell the error at a patch level, so the interpreter that
// runs is asked, not the one that was built for.
bool tells_errno() {
    return Py_Version >= 0x030E0100 || (Py_Version >> 16 == 0x030D && Py_Version >= 0x030D0A00);
}

PyObject* nametoindex(PyObject* object) {
    PyObject* encoded = nullptr;
    if (!PyUnicode_FSConverter(object, &encoded)) return nullptr;
    const Ref name(encoded);
    errno = ENODEV;  // not every C library sets it
    const unsigned index = sys::interface_index(PyBytes_AS_STRING(name.get()));
    if (index != 0) return PyLong_FromUnsignedLong(index);
    if (tells_errno()) return set_os_error();
    PyErr_SetString(PyExc_OSError, "no interface with this name");
    return nullptr;
}

#if PY_VERSION_HEX >= 0x030E0000
bool read_index(PyObject* object, unsigned& out) {
    return read_unsigned(object, "unsigned int", out);
}
#else
// Before 3.11.8 and 3.12.2 the upper half was ignored.
bool refuses_large() {
    return Py_Version >> 16 == 0x030B ? Py_Version >= 0x030B0800 : Py_Version >= 0x030C0200;
}

bool read_index(PyObject* object, unsigned& out) {
    const Ref number(PyIndex_Check(object) ? PyNumber_Index(object) : Py_NewRef(object));
    if (!number) return false;
    const unsigned long value = PyLong_AsUnsignedLong(number.get());
    if (value == static_cast<unsigned long>(-1) && PyErr_Occurred() != nullptr) return false;
    if (value > UINT_MAX && refuses_large()) {
        PyErr_SetString(PyExc_OverflowError, "index is too large");
        return false;
    }
    out = static_cast<unsigned>(value & UINT_MAX);
    return true;
}
#endif

PyObject* indextoname(PyObject* object) {
    unsigned index = 0;
    if (!read_index(object, index)) return nullptr;
    char name[IF_NAMESIZE + 1] = {};
    errno = ENXIO;
    if (sys::interface_name(index, name) == nullptr) return set_os_error();
    return PyUnicode_DecodeFSDefault(name);
}

}  // namespace

bool add_interfaces(PyObject* module) {
    static PyMethodDef methods[] = {
        method("if_nameindex", no_argument<"if_nameindex", nameindex>,
               "if_nameindex($module, /)\n--\n\n"
               "Return the network interfaces as a list of (index: int, name: str).\n\n"
               "Raises OSError where the system call fails. if_nameindex(3)."),
        method("if_nametoindex", one_argument<"if_nametoindex", object_since_3_13, nametoindex>,
               "if_nametoindex($module, if_name, /)\n--\n\n"
               "Return the index (int) of the network interface with this name (str, bytes or "
               "path-like).\n\nRaises OSError where there is none. if_nametoindex(3)."),
        method(
            "if_indextoname", one_argument<"if_indextoname", Convention::object, indextoname>,
            "if_indextoname($module, if_index, /)\n--\n\n"
            "Return the name (str) of the network interface with this index (int).\n\n"
            "Raises OSError where there is none; OverflowError, and from 3.14 ValueError, for an "
            "index out of range. if_indextoname(3)."),
        {nullptr, nullptr, 0, nullptr},
    };
    return PyModule_AddFunctions(module, methods) == 0;
}

}  // namespace tracesock::resolver
