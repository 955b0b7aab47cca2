// What the module file lists.
#pragma once

#include <nanobind/nanobind.h>

namespace tracesock {

void bind_address(nanobind::module_& module);
void bind_socket(nanobind::module_& module);
void bind_functions(nanobind::module_& module);
void bind_recorder(nanobind::module_& module);

}  // namespace tracesock
