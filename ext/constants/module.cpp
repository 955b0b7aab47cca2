#include <nanobind/nanobind.h>

#include <limits>

#include "constants/constants.hpp"

namespace nb = nanobind;

namespace tracesock {
namespace {

constexpr const char* kind_names[] = {"AddressFamily", "SocketKind", "MsgFlag",
                                      "AddressInfo",   "int",        "str"};

PyObject* value_of(const constants::Constant& constant) {
    return constant.kind == constants::Kind::text
               ? PyUnicode_FromStringAndSize(constant.text.data(),
                                             static_cast<Py_ssize_t>(constant.text.size()))
               : PyLong_FromLongLong(constant.value);
}

nb::dict make_constants(std::uint32_t windows_build) {
    nb::dict kinds;
    nb::dict members[std::size(kind_names)];
    for (std::size_t i = 0; i < std::size(kind_names); ++i) kinds[kind_names[i]] = members[i];
    for (const constants::Constant& constant : constants::all()) {
        if (constant.windows_build > windows_build) continue;
        // Interned, because these become attributes of a module.
        const nb::object name = nb::steal(PyUnicode_InternFromString(constant.name.data()));
        const nb::object value = nb::steal(value_of(constant));
        PyObject* const kind = members[static_cast<std::size_t>(constant.kind)].ptr();
        if (!name.is_valid() || !value.is_valid() ||
            PyDict_SetItem(kind, name.ptr(), value.ptr()) < 0)
            nb::raise_python_error();
    }
    return kinds;
}

}  // namespace

void bind_constants(nb::module_& module) {
    module.def("constants", make_constants,
               nb::arg("windows_build") = std::numeric_limits<std::uint32_t>::max(),
               nb::sig("def constants(windows_build: int = 4294967295) -> "
                       "dict[str, dict[str, int | str]]"),
               "The public constants of this platform, as plain values by name, under the name of\n"
               "their type: AddressFamily, SocketKind, MsgFlag, AddressInfo, int or str.\n\n"
               "windows_build: the build number of the running Windows; constants that came with\n"
               "a later build are left out. No meaning elsewhere.");
}

}  // namespace tracesock
