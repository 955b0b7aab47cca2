// What the recorder's bindings share.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "recorder/record.hpp"

namespace tracesock {

// (kind, start, end, trace id, parent id, size, stall, connection, calls, error, flags), times in
// nanoseconds since the Unix epoch.
nanobind::tuple record_tuple(const recorder::Record& record);

// A str as UTF-8. What UTF-8 cannot hold, a lone surrogate, becomes U+FFFD.
std::string utf8(nanobind::handle text);

void bind_otlp_drain(nanobind::module_& module);
void bind_tls(nanobind::module_& module);

}  // namespace tracesock
