// What the extension binds, and nothing else.
#include <nanobind/nanobind.h>

#include "resolver/resolver.hpp"
#include "socket/bindings.hpp"

namespace nb = nanobind;

NB_MODULE(_native, module) {
    module.attr("__version__") = TRACESOCK_VERSION;
    tracesock::bind_address(module);
    tracesock::bind_socket(module);
    tracesock::bind_functions(module);
    if (!tracesock::resolver::add_functions(module.ptr())) throw nb::python_error();
}
