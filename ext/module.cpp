// What the extension binds, and nothing else.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <array>
#include <string_view>

#include "resolver/resolver.hpp"
#include "socket/bindings.hpp"

namespace nb = nanobind;

namespace tracesock {
void bind_audit(nb::module_& module);
void bind_constants(nb::module_& module);
void bind_otlp(nb::module_& module);

namespace {

// What a program that only makes sockets does not need, bound when it is first named.
struct Part {
    std::string_view name;
    void (*bind)(nb::module_& module);
};
constexpr std::array parts{
    Part{"recorder", bind_recorder},        Part{"audit", bind_audit},
    Part{"OtlpEncoder", bind_otlp},         Part{"otlp_resource_attribute", bind_otlp},
    Part{"otlp_span_attribute", bind_otlp}, Part{"otlp_json", bind_otlp},
};

nb::object late_attribute(nb::handle module, const std::string& name) {
    for (const Part& part : parts) {
        if (part.name != name) continue;
        auto target = nb::borrow<nb::module_>(module);
        part.bind(target);
        return target.attr(name.c_str());
    }
    throw nb::attribute_error(
        ("module 'tracesock._native' has no attribute '" + name + "'").c_str());
}

}  // namespace
}  // namespace tracesock

NB_MODULE(_native, module) {
    // What telemetry holds at the interpreter's end is no leak worth a program's standard error.
    nb::set_leak_warnings(false);
    module.attr("__version__") = TRACESOCK_VERSION;
    tracesock::bind_constants(module);
    tracesock::bind_address(module);
    tracesock::bind_socket(module);
    tracesock::bind_functions(module);
    if (!tracesock::resolver::add_functions(module.ptr())) throw nb::python_error();
    module.attr("__getattr__") = nb::cpp_function(
        [self = module.ptr()](const std::string& name) {
            return tracesock::late_attribute(self, name);
        },
        nb::arg("name"));
}
