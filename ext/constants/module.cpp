#include <nanobind/nanobind.h>

#include <bit>
#include <functional>
#include <limits>
#include <vector>

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

// The names that a dictionary has, by their text: most of ours are in `_socket`'s, and to find one
// here takes a quarter of the time that it takes to make and intern it.
class Names {
  public:
    explicit Names(nb::dict names)
        : names_(nb::steal(PyDict_Copy(names.ptr()))), slots_(std::bit_ceil(2 * names.size() + 2)) {
        if (!names_.is_valid()) nb::raise_python_error();
        PyObject *key = nullptr, *value = nullptr;
        for (Py_ssize_t position = 0; PyDict_Next(names_.ptr(), &position, &key, &value);) {
            Py_ssize_t size = 0;
            const char* text = PyUnicode_Check(key) ? PyUnicode_AsUTF8AndSize(key, &size) : nullptr;
            if (text == nullptr) {
                PyErr_Clear();
                continue;
            }
            const std::string_view name(text, static_cast<std::size_t>(size));
            slot(name) = {name, key};
        }
    }

    // Interned, because it becomes an attribute of a module.
    nb::object of(std::string_view name) {
        PyObject* const known = slot(name).key;
        return known != nullptr && PyUnicode_CHECK_INTERNED(known)
                   ? nb::borrow(known)
                   : nb::steal(PyUnicode_InternFromString(name.data()));
    }

  private:
    struct Slot {
        std::string_view text;
        PyObject* key = nullptr;
    };

    Slot& slot(std::string_view name) {
        const std::size_t mask = slots_.size() - 1;
        std::size_t i = std::hash<std::string_view>()(name) & mask;
        while (slots_[i].key != nullptr && slots_[i].text != name) i = (i + 1) & mask;
        return slots_[i];
    }

    nb::object names_;  // a copy, which no other thread changes
    std::vector<Slot> slots_;
};

nb::dict make_constants(std::uint32_t windows_build, nb::dict names) {
    Names known(names);
    nb::dict kinds;
    nb::dict members[std::size(kind_names)];
    for (std::size_t i = 0; i < std::size(kind_names); ++i) kinds[kind_names[i]] = members[i];
    for (const constants::Constant& constant : constants::all()) {
        if (constant.windows_build > windows_build) continue;
        const nb::object name = known.of(constant.name);
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
               nb::arg("names") = nb::dict(),
               nb::sig("def constants(windows_build: int = 4294967295, names: dict[str, object] = "
                       "...) -> dict[str, dict[str, int | str]]"),
               "The public constants of this platform, as plain values by name, under the name of\n"
               "their type: AddressFamily, SocketKind, MsgFlag, AddressInfo, int or str.\n\n"
               "windows_build: the build number of the running Windows; constants that came with\n"
               "a later build are left out. No meaning elsewhere.\n"
               "names: a dictionary that has most of the names, as the one of `_socket`, which\n"
               "spares the work to make them.");
}

}  // namespace tracesock
