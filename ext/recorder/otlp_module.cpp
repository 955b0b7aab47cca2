// The OTLP encoder for Python: spans that are made there, resources, the JSON of a request.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string_view.h>

#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "recorder/identifier.hpp"
#include "recorder/module.hpp"
#include "recorder/otlp.hpp"

namespace nb = nanobind;

namespace tracesock {
namespace {

using namespace recorder::otlp;

[[noreturn]] void raise(PyObject* type, const std::string& message) {
    PyErr_SetString(type, message.c_str());
    nb::raise_python_error();
}

nb::object checked(PyObject* object) {
    if (object == nullptr) nb::raise_python_error();
    return nb::steal(object);
}

std::string text_argument(const char* name, nb::handle value) {
    if (!PyUnicode_Check(value.ptr()))
        raise(PyExc_TypeError,
              std::string(name) + " must be a str, not " + Py_TYPE(value.ptr())->tp_name);
    return utf8(value);
}

std::string_view bytes_argument(const char* name, nb::handle value) {
    if (!PyBytes_Check(value.ptr()))
        raise(PyExc_TypeError,
              std::string(name) + " must be bytes, not " + Py_TYPE(value.ptr())->tp_name);
    return {PyBytes_AS_STRING(value.ptr()),
            static_cast<std::size_t>(PyBytes_GET_SIZE(value.ptr()))};
}

std::uint64_t number_argument(const char* name, nb::handle value, std::uint64_t largest) {
    if (!PyLong_Check(value.ptr()))
        raise(PyExc_TypeError,
              std::string(name) + " must be an int, not " + Py_TYPE(value.ptr())->tp_name);
    const unsigned long long number = PyLong_AsUnsignedLongLong(value.ptr());
    const bool failed = PyErr_Occurred() != nullptr;
    if (failed && !PyErr_ExceptionMatches(PyExc_OverflowError)) nb::raise_python_error();
    if (failed || number > largest) {
        PyErr_Clear();
        raise(PyExc_ValueError,
              std::string(name) + " must be between 0 and " + std::to_string(largest));
    }
    return number;
}

// An identifier that is not zero.
template <std::size_t size>
std::array<std::uint8_t, size> identifier_argument(const char* name, nb::handle value) {
    std::array<std::uint8_t, size> id{};
    const bool fits = recorder::read_identifier(value.ptr(), id);
    if (!fits && !PyErr_ExceptionMatches(PyExc_OverflowError) &&
        !PyErr_ExceptionMatches(PyExc_TypeError))
        nb::raise_python_error();
    if (!fits || id == std::array<std::uint8_t, size>{}) {
        PyErr_Clear();
        raise(PyLong_Check(value.ptr()) ? PyExc_ValueError : PyExc_TypeError,
              std::string(name) + " must be an int between 1 and 2**" + std::to_string(size * 8) +
                  " - 1");
    }
    return id;
}

bool is_instance(nb::handle value, const char* abstract_class) {
    const nb::object type = nb::module_::import_("collections.abc").attr(abstract_class);
    const int answer = PyObject_IsInstance(value.ptr(), type.ptr());
    if (answer < 0) nb::raise_python_error();
    return answer != 0;
}

// Attributes of Python as those of C++, which point into this.
class Attributes {
  public:
    explicit Attributes(nb::handle mapping) { top_ = entries("attributes", mapping, 0); }
    Attributes(nb::handle key, nb::handle value) { top_.push_back(entry("key", key, value, 0)); }

    const std::vector<Attribute>& all() const { return top_; }

  private:
    // Each level takes two or three of the hundred that decoders allow.
    static constexpr int deepest = 16;

    std::vector<Attribute> entries(const std::string& where, nb::handle mapping, int depth) {
        // A copy, because converting a value may run code that changes the mapping.
        const nb::object items = checked(PyMapping_Items(mapping.ptr()));
        const nb::object fixed = checked(PySequence_Tuple(items.ptr()));
        std::vector<Attribute> out;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(fixed.ptr()); ++i) {
            PyObject* const item = PyTuple_GET_ITEM(fixed.ptr(), i);
            if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2)
                raise(PyExc_TypeError, where + ": items() must give pairs");
            out.push_back(
                entry(where, PyTuple_GET_ITEM(item, 0), PyTuple_GET_ITEM(item, 1), depth));
        }
        return out;
    }

    Attribute entry(const std::string& where, nb::handle key, nb::handle value, int depth) {
        // The SDK makes strings of the keys of nested mappings.
        if (!PyUnicode_Check(key.ptr()) && depth == 0)
            raise(PyExc_TypeError,
                  where + ": a key must be a str, not " + std::string(Py_TYPE(key.ptr())->tp_name));
        const nb::object text = checked(PyObject_Str(key.ptr()));
        const std::string& name = texts_.emplace_back(utf8(text));
        return {name, this->value(name, value, depth)};
    }

    // The types, in the order, of opentelemetry-exporter-otlp-proto-common.
    Value value(const std::string& key, nb::handle value, int depth) {
        PyObject* const object = value.ptr();
        if (object == Py_None) return {};
        if (PyBool_Check(object)) return object == Py_True;
        if (PyUnicode_Check(object)) return std::string_view(texts_.emplace_back(utf8(value)));
        if (PyLong_Check(object)) {
            int overflow = 0;
            const long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
            if (number == -1 && PyErr_Occurred()) nb::raise_python_error();
            if (overflow != 0)
                raise(PyExc_ValueError,
                      "attribute '" + key + "': the int does not fit into 64 bits");
            return static_cast<std::int64_t>(number);
        }
        if (PyFloat_Check(object)) return PyFloat_AS_DOUBLE(object);
        if (PyBytes_Check(object))
            return Bytes{texts_.emplace_back(bytes_argument("value", value))};
        if (depth == deepest)
            raise(PyExc_ValueError, "attribute '" + key + "': nested deeper than " +
                                        std::to_string(deepest) + " levels");
        if (is_instance(value, "Sequence")) {
            const nb::object fixed = checked(PySequence_Tuple(object));
            std::vector<Value> items;
            for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(fixed.ptr()); ++i)
                items.push_back(this->value(key, PyTuple_GET_ITEM(fixed.ptr(), i), depth + 1));
            const auto& kept = arrays_.emplace_back(std::move(items));
            return Array{kept.data(), kept.size()};
        }
        if (is_instance(value, "Mapping")) {
            auto inner = entries("attribute '" + key + "'", value, depth + 1);
            const auto& kept = maps_.emplace_back(std::move(inner));
            return Map{kept.data(), kept.size()};
        }
        raise(PyExc_TypeError, "attribute '" + key +
                                   "': str, bool, int, float, bytes, None, or sequences and "
                                   "mappings of them, not " +
                                   Py_TYPE(object)->tp_name);
    }

    // Elements of a deque stay where they are.
    std::deque<std::string> texts_;
    std::deque<std::vector<Value>> arrays_;
    std::deque<std::vector<Attribute>> maps_;
    std::vector<Attribute> top_;
};

std::size_t limit_of(std::optional<std::size_t> limit) {
    return limit.value_or(no_limit);
}

nb::bytes as_bytes(std::string_view bytes) {
    return nb::bytes(bytes.data(), bytes.size());
}

struct OtlpEncoder {
    OtlpEncoder(nb::handle resource, nb::handle resource_schema_url, nb::handle scope_name,
                nb::handle scope_version, nb::handle scope_schema_url, std::size_t limit,
                std::optional<std::size_t> value_limit)
        : encoder({.resource = bytes_argument("resource", resource),
                   .resource_schema_url = text_argument("resource_schema_url", resource_schema_url),
                   .scope_name = text_argument("scope_name", scope_name),
                   .scope_version = text_argument("scope_version", scope_version),
                   .scope_schema_url = text_argument("scope_schema_url", scope_schema_url)},
                  limit, limit_of(value_limit)) {}

    bool add_span(nb::handle name, nb::handle trace_id, nb::handle span_id, nb::handle start,
                  nb::handle end, nb::handle parent, bool parent_is_remote, nb::handle trace_state,
                  nb::handle kind, nb::handle attributes, nb::handle encoded_attributes,
                  nb::handle dropped_attributes, nb::handle status, nb::handle message) {
        // Everything that can run Python code comes before the encoder is touched.
        Span span;
        const std::string name_text = text_argument("name", name);
        const std::string state_text = text_argument("trace_state", trace_state);
        const std::string message_text = text_argument("message", message);
        std::optional<Attributes> converted;
        if (!attributes.is_none()) converted.emplace(attributes);
        span.trace = identifier_argument<16>("trace_id", trace_id);
        span.id = identifier_argument<8>("span_id", span_id);
        if (!parent.is_none()) span.parent = identifier_argument<8>("parent", parent);
        span.trace_state = state_text;
        span.name = name_text;
        span.kind = static_cast<SpanKind>(number_argument("kind", kind, 5));
        constexpr std::uint64_t longest = ~std::uint64_t{0};
        span.start = number_argument("start", start, longest);
        span.end = number_argument("end", end, longest);
        span.encoded_attributes = bytes_argument("encoded_attributes", encoded_attributes);
        if (converted) span.attributes = converted->all();
        span.dropped_attributes = static_cast<std::uint32_t>(
            number_argument("dropped_attributes", dropped_attributes, 0xffffffff));
        span.status = static_cast<StatusCode>(number_argument("status", status, 2));
        span.message = message_text;
        if (parent_is_remote) span.flags |= remote_parent;
        return encoder.span(span);
    }

    nb::bytes take() {
        nb::bytes request = as_bytes(encoder.finish());
        encoder.clear();
        return request;
    }

    TraceEncoder encoder;
};

nb::bytes attribute(Holder holder, nb::handle key, nb::handle value, std::size_t limit) {
    const Attributes converted(key, value);
    std::string out;
    append_attribute(out, holder, converted.all().front(), limit);
    return as_bytes(out);
}

nb::bytes json(nb::handle request) {
    std::string out;
    if (!append_json(out, bytes_argument("request", request)))
        raise(PyExc_ValueError, "request is not what an OtlpEncoder gave");
    return as_bytes(out);
}

}  // namespace

std::string utf8(nb::handle text) {
    Py_ssize_t size = 0;
    if (const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size))
        return {data, static_cast<std::size_t>(size)};
    if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) nb::raise_python_error();
    PyErr_Clear();
    const nb::object wide =
        checked(PyUnicode_AsEncodedString(text.ptr(), "utf-32-le", "surrogatepass"));
    const nb::object valid = checked(PyUnicode_Decode(
        PyBytes_AS_STRING(wide.ptr()), PyBytes_GET_SIZE(wide.ptr()), "utf-32-le", "replace"));
    return utf8(valid);
}

void bind_otlp(nb::module_& module) {
    nb::class_<OtlpEncoder>(
        module, "OtlpEncoder",
        "Builds requests of the OpenTelemetry protocol (ExportTraceServiceRequest of\n"
        "opentelemetry-proto), one after another in the same memory.")
        .def(nb::init<nb::handle, nb::handle, nb::handle, nb::handle, nb::handle, std::size_t,
                      std::optional<std::size_t>>(),
             nb::arg("resource").none() = nb::bytes("", 0),
             nb::arg("resource_schema_url").none() = "", nb::arg("scope_name").none() = "",
             nb::arg("scope_version").none() = "", nb::arg("scope_schema_url").none() = "",
             nb::kw_only(), nb::arg("limit") = request_limit, nb::arg("value_limit") = nb::none(),
             nb::sig("def __init__(self, resource: bytes = b\"\", resource_schema_url: str = \"\", "
                     "scope_name: str = \"\", scope_version: str = \"\", "
                     "scope_schema_url: str = \"\", *, limit: int = 20971520, "
                     "value_limit: int | None = None) -> None"),
             "resource: the attributes of the resource, each by otlp_resource_attribute, joined.\n"
             "limit: bytes of a request, at most. value_limit: characters of each text in an\n"
             "attribute's value, at most; no limit without it.")
        .def("add_span", &OtlpEncoder::add_span, nb::lock_self(), nb::arg("name").none(),
             nb::arg("trace_id").none(), nb::arg("span_id").none(), nb::arg("start").none(),
             nb::arg("end").none(), nb::kw_only(), nb::arg("parent") = nb::none(),
             nb::arg("parent_is_remote") = false, nb::arg("trace_state").none() = "",
             nb::arg("kind").none() = 1, nb::arg("attributes") = nb::none(),
             nb::arg("encoded_attributes").none() = nb::bytes("", 0),
             nb::arg("dropped_attributes").none() = 0, nb::arg("status").none() = 0,
             nb::arg("message").none() = "",
             nb::sig("def add_span(self, name: str, trace_id: int, span_id: int, start: int, "
                     "end: int, *, parent: int | None = None, parent_is_remote: bool = False, "
                     "trace_state: str = \"\", kind: int = 1, "
                     "attributes: collections.abc.Mapping[str, object] | None = None, "
                     "encoded_attributes: bytes = b\"\", dropped_attributes: int = 0, "
                     "status: int = 0, message: str = \"\") -> bool"),
             "Add a span; False when the request would grow over its limit, and is as it was.\n\n"
             "start, end: nanoseconds since the Unix epoch. parent: the parent's span id.\n"
             "trace_state: as in the header tracestate. kind: OTLP's number, 1 for internal (one\n"
             "more than the API's). status: 0 unset, 1 ok, 2 error, with its message.\n"
             "encoded_attributes: of otlp_span_attribute, joined. Raises TypeError or ValueError\n"
             "for an argument or an attribute that cannot be encoded; no span is then added.")
        .def("take", &OtlpEncoder::take, nb::lock_self(), nb::sig("def take(self) -> bytes"),
             "The request, a copy, empty without a span; the next begins.")
        .def_prop_ro(
            "count", [](const OtlpEncoder& self) { return self.encoder.count(); }, nb::lock_self(),
            "Spans in the request.")
        .def_prop_ro(
            "size", [](const OtlpEncoder& self) { return self.encoder.size(); }, nb::lock_self(),
            "Bytes of the request.");

    // Not with module.def: such a function points at the module, and this one is gone once what it
    // holds was given to another.
    module.attr("otlp_resource_attribute") = nb::cpp_function(
        [](nb::handle key, nb::handle value) {
            return attribute(Holder::resource, key, value, no_limit);
        },
        nb::name("otlp_resource_attribute"), nb::arg("key").none(), nb::arg("value").none(),
        nb::sig("def otlp_resource_attribute(key: str, value: object) -> bytes"),
        "An attribute as the encoding of a Resource holds it. Raises TypeError or ValueError for\n"
        "one that OTLP cannot hold.");
    module.attr("otlp_span_attribute") = nb::cpp_function(
        // No std::optional: GCC 16 takes the one in nanobind's caster for uninitialised.
        [](nb::handle key, nb::handle value, nb::handle limit) {
            return attribute(
                Holder::span, key, value,
                limit.is_none() ? no_limit : number_argument("limit", limit, no_limit));
        },
        nb::name("otlp_span_attribute"), nb::arg("key").none(), nb::arg("value").none(),
        nb::arg("limit").none() = nb::none(),
        nb::sig("def otlp_span_attribute(key: str, value: object, limit: int | None = None) "
                "-> bytes"),
        "An attribute as the encoding of a span holds it, its texts of at most `limit`\n"
        "characters. Raises TypeError or ValueError for one that OTLP cannot hold.");
    module.attr("otlp_json") = nb::cpp_function(
        json, nb::name("otlp_json"), nb::arg("request").none(),
        nb::sig("def otlp_json(request: bytes) -> bytes"),
        "The request of an OtlpEncoder as JSON, one line without its end: OTLP's mapping,\n"
        "https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding. Raises\n"
        "ValueError for other bytes.");
}

}  // namespace tracesock
