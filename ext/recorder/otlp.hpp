// Traces of the OpenTelemetry protocol (opentelemetry-proto, trace/v1): requests encoded straight
// into a buffer that is reused, and their JSON. No Python here.
//
// What is written is the canonical form: fields in ascending order, shortest varints, no default
// values. Text that is not valid UTF-8 gets U+FFFD for each maximal ill-formed part, as Unicode
// recommends (The Unicode Standard, 3.9, "U+FFFD Substitution of Maximal Subparts").
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "recorder/record.hpp"

namespace tracesock::recorder::otlp {

enum class SpanKind : std::uint8_t { unspecified, internal, server, client, producer, consumer };
enum class StatusCode : std::uint8_t { unset, ok, error };

// Flags of a span. The SDK's exporter sets these two and leaves the W3C trace flags 0.
inline constexpr std::uint32_t knows_remote = 0x100;  // whether the parent is remote is known
inline constexpr std::uint32_t remote_parent = 0x200;

inline constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();
// The protocol's recommendation for a request before compression (OTLP/HTTP Request).
inline constexpr std::size_t request_limit = 20 * 1024 * 1024;

struct Value;
struct Attribute;

struct Bytes {
    std::string_view data;
};
struct Array {
    const Value* values;
    std::size_t count;
};
struct Map {
    const Attribute* entries;
    std::size_t count;
};

// The value of an attribute; it borrows what it names. The empty alternative is an AnyValue that
// holds nothing.
struct Value : std::variant<std::monostate, std::string_view, bool, std::int64_t, double, Bytes,
                            Array, Map> {
    using variant::variant;
};

struct Attribute {
    std::string_view key;
    Value value;
};

struct Span {
    TraceId trace{};
    SpanId id{};
    SpanId parent{};  // all zero: none
    std::string_view trace_state;
    std::string_view name;
    SpanKind kind = SpanKind::internal;
    std::uint64_t start = 0;  // nanoseconds since the Unix epoch
    std::uint64_t end = 0;
    std::string_view encoded_attributes;  // of append_attribute, written before `attributes`
    std::span<const Attribute> attributes;
    std::uint32_t dropped_attributes = 0;
    StatusCode status = StatusCode::unset;
    std::string_view message;
    std::uint32_t flags = knows_remote;
};

// What the attributes belong to: the number of their field there.
enum class Holder : std::uint8_t { resource = 1, span = 9 };

// Appends one encoded attribute. Texts in the value are cut after `limit` characters.
void append_attribute(std::string& out, Holder holder, const Attribute& attribute,
                      std::size_t limit = no_limit);

// Where all spans of a request come from.
struct Origin {
    std::string_view resource;  // an encoded Resource: its attributes by append_attribute
    std::string_view resource_schema_url;
    std::string_view scope_name;
    std::string_view scope_version;
    std::string_view scope_schema_url;
};

// Builds one ExportTraceServiceRequest after another in the same memory.
class TraceEncoder {
  public:
    // A request grows to at most `limit` bytes; texts in attributes are cut after `value_limit`
    // characters, those in `Span::encoded_attributes` were by whoever encoded them.
    explicit TraceEncoder(const Origin& origin, std::size_t limit = request_limit,
                          std::size_t value_limit = no_limit);

    // Adds a span. False when the request would grow over the limit: it is then as it was before.
    bool span(const Span& span);

    // The request, or nothing when it has no span. Valid until the next call of span or clear.
    std::string_view finish();
    // Begins the next request.
    void clear() noexcept;

    std::size_t count() const noexcept { return count_; }
    // Bytes that finish would return.
    std::size_t size() const noexcept;

  private:
    void reserve(std::size_t room);
    std::size_t scope_size(std::size_t spans) const noexcept;
    std::size_t resource_size(std::size_t scope) const noexcept;
    std::size_t request_size(std::size_t spans) const noexcept;

    std::string resource_;  // encoded fields, with their tags
    std::string scope_;
    std::string scope_url_;
    std::string resource_url_;
    std::size_t limit_;
    std::size_t value_limit_;

    // The spans begin at front_. What stands before them has lengths that only finish knows, so
    // that it is written then, ending where they begin.
    std::size_t front_;
    std::size_t end_;
    std::size_t count_ = 0;
    std::size_t capacity_ = 0;
    std::unique_ptr<char[]> buffer_;
};

// Appends the JSON of a request that TraceEncoder made, on one line: OTLP's mapping (OTLP/HTTP,
// JSON Protobuf Encoding). False, with `out` as it was, for other bytes.
bool append_json(std::string& out, std::string_view request);

}  // namespace tracesock::recorder::otlp
