// What the extension binds, and nothing else.
#include <nanobind/nanobind.h>

#include <array>
#include <cstring>

#include "resolver/resolver.hpp"
#include "socket/bindings.hpp"
#include "socket/python.hpp"
#include "socket/state.hpp"

namespace nb = nanobind;

namespace tracesock {
void bind_audit(nb::module_& module);
void bind_constants(nb::module_& module);
void bind_otlp(nb::module_& module);

namespace {

// What a program that only makes sockets does not need, bound when it is first named.
struct Part {
    const char* name;
    void (*bind)(nb::module_& module);
};
constexpr std::array parts{
    Part{"recorder", bind_recorder},        Part{"audit", bind_audit},
    Part{"OtlpEncoder", bind_otlp},         Part{"otlp_resource_attribute", bind_otlp},
    Part{"otlp_span_attribute", bind_otlp}, Part{"otlp_json", bind_otlp},
};

// Binds a part into a module of its own, and then gives the module what that holds: another thread
// sees no half of it.
nb::object bind_late(const nb::dict& names, const Part& part) {
    static nb::ft_mutex binding;
    const nb::ft_lock_guard guard(binding);
    const nb::str wanted(part.name);
    if (!names.contains(wanted)) {
        // Another interpreter may have imported the extension since.
        Interpreter* const own = interpreter();
        if (own == nullptr) throw nb::python_error();
        if (nb::detail::internals != own->internals) nb::detail::internals = own->internals;
        auto stage = nb::steal<nb::module_>(PyModule_New("tracesock._native"));
        if (!stage.is_valid()) throw nb::python_error();
        part.bind(stage);
        for (const auto& [name, value] : nb::cast<nb::dict>(stage.attr("__dict__")))
            if (std::strncmp(nb::borrow<nb::str>(name).c_str(), "__", 2) != 0) names[name] = value;
    }
    return names[wanted];
}

// The module's __getattr__. In C, because every `from` that reads the module asks for a __path__
// that it has not: a C++ exception for each would take long.
PyObject* late_attribute(PyObject* module, PyObject* name) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        if (!PyUnicode_Check(name)) {
            PyErr_Format(PyExc_TypeError, "attribute name must be a str, not %.100s",
                         Py_TYPE(name)->tp_name);
            return nullptr;
        }
        try {
            for (const Part& part : parts)
                if (PyUnicode_CompareWithASCIIString(name, part.name) == 0)
                    return bind_late(nb::borrow<nb::dict>(PyModule_GetDict(module)), part)
                        .release()
                        .ptr();
        } catch (nb::python_error& error) {
            error.restore();
            return nullptr;
        }
        PyErr_Format(PyExc_AttributeError, "module 'tracesock._native' has no attribute %R", name);
        return nullptr;
    });
}

PyMethodDef module_methods[] = {
    {"__getattr__", late_attribute, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace
}  // namespace tracesock

NB_MODULE(_native, module) {
    tracesock::ready_unwinder();
    // What telemetry holds at the interpreter's end is no leak worth a program's standard error.
    nb::set_leak_warnings(false);
    module.attr("__version__") = TRACESOCK_VERSION;
    tracesock::bind_constants(module);
    tracesock::bind_address(module);
    tracesock::bind_socket(module);
    tracesock::bind_functions(module);
    if (!tracesock::resolver::add_functions(module.ptr())) throw nb::python_error();
    if (PyModule_AddFunctions(module.ptr(), tracesock::module_methods) < 0)
        throw nb::python_error();
}
