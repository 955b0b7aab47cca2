// What the extension binds, and nothing else.
#include <nanobind/nanobind.h>

#include "resolver/resolver.hpp"
#include "socket/bindings.hpp"

namespace nb = nanobind;

namespace tracesock {
void bind_audit(nb::module_& module);
void bind_constants(nb::module_& module);
void bind_otlp(nb::module_& module);
}  // namespace tracesock

NB_MODULE(_native, module) {
    module.attr("__version__") = TRACESOCK_VERSION;
    tracesock::bind_constants(module);
    tracesock::bind_address(module);
    tracesock::bind_socket(module);
    tracesock::bind_functions(module);
    tracesock::bind_recorder(module);
    tracesock::bind_audit(module);
    tracesock::bind_otlp(module);
    if (!tracesock::resolver::add_functions(module.ptr())) throw nb::python_error();
}
