#include "recorder/otlp.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace tracesock::recorder::otlp {
namespace {

// Wire types (protobuf.dev/programming-guides/encoding).
enum Wire : std::uint8_t { varint = 0, fixed64 = 1, delimited = 2, fixed32 = 5 };

constexpr std::uint8_t tag(unsigned field, Wire wire) {
    return static_cast<std::uint8_t>(field << 3 | wire);
}

// A tag of one byte and the longest length of what follows it.
constexpr std::size_t header_room = 1 + 5;
// A span without its texts and attributes: tag and length, three identifiers, kind, two times,
// the dropped attributes, status with its code, flags; then the headers of four texts.
constexpr std::size_t span_room =
    header_room + 18 + 10 + 10 + 2 + 9 + 9 + 6 + header_room + 2 + 6 + 4 * header_room;
constexpr std::size_t first_capacity = 64 * 1024;
// Lengths in a message are 31-bit (protobuf.dev/programming-guides/proto-limits).
constexpr std::size_t longest_message = 0x7fffffff;

constexpr std::size_t varint_size(std::uint64_t value) {
    // A byte for each seven bits begun; for up to 64 of them this is the quotient, rounded up.
    return (static_cast<std::size_t>(std::bit_width(value | 1)) * 9 + 64) / 64;
}

struct Sequence {
    std::size_t size;
    bool valid;
};

// The character that begins at `text`, or the maximal part of an ill-formed one.
Sequence next_character(const unsigned char* text, std::size_t size) {
    const unsigned char first = text[0];
    if (first < 0x80) return {1, true};
    unsigned char low = 0x80, high = 0xbf;  // of the second byte
    std::size_t length = 0;
    if (first >= 0xc2 && first <= 0xdf) {
        length = 2;
    } else if (first >= 0xe0 && first <= 0xef) {
        length = 3;
        if (first == 0xe0) low = 0xa0;
        if (first == 0xed) high = 0x9f;
    } else if (first >= 0xf0 && first <= 0xf4) {
        length = 4;
        if (first == 0xf0) low = 0x90;
        if (first == 0xf4) high = 0x8f;
    } else {
        return {1, false};
    }
    for (std::size_t i = 1; i < length; ++i) {
        if (i == size || text[i] < low || text[i] > high) return {i, false};
        low = 0x80;
        high = 0xbf;
    }
    return {length, true};
}

// Copies at most `limit` characters, as valid UTF-8; returns where the copy ends. It is at most
// three times as long.
char* copy_characters(char* out, std::string_view text, std::size_t limit) {
    const auto* at = reinterpret_cast<const unsigned char*>(text.data());
    std::size_t left = text.size();
    for (; left > 0 && limit > 0; --limit) {
        const Sequence sequence = next_character(at, left);
        if (sequence.valid) {
            std::memcpy(out, at, sequence.size);
            out += sequence.size;
        } else {
            std::memcpy(out, "\xef\xbf\xbd", 3);
            out += 3;
        }
        at += sequence.size;
        left -= sequence.size;
    }
    return out;
}

// Copies `text` and tells whether all of it is ASCII.
bool copy_ascii(char* out, std::string_view text) {
    constexpr std::uint64_t high_bits = 0x8080808080808080;
    constexpr std::size_t word = sizeof(std::uint64_t);
    std::uint64_t seen = 0;
    const auto copy_word = [&](std::size_t at) {
        std::uint64_t bytes;
        std::memcpy(&bytes, text.data() + at, word);
        std::memcpy(out + at, &bytes, word);
        seen |= bytes;
    };
    if (text.size() >= word) {
        for (std::size_t at = 0; at + word <= text.size(); at += word) copy_word(at);
        copy_word(text.size() - word);
    } else {
        for (std::size_t at = 0; at < text.size(); ++at) {
            out[at] = text[at];
            seen |= static_cast<unsigned char>(text[at]);
        }
    }
    return (seen & high_bits) == 0;
}

// No more of a text than `limit` characters can take.
std::string_view head(std::string_view text, std::size_t limit) {
    return limit < text.size() / 4 ? text.substr(0, limit * 4) : text;
}

std::size_t text_room(std::string_view text) {
    return header_room + text.size() * 3;
}

std::size_t attribute_room(const Attribute& attribute, std::size_t limit);

// Room for the AnyValue's content.
std::size_t value_room(const Value& value, std::size_t limit) {
    switch (value.index()) {
        case 0:
            return 0;
        case 1:
            return text_room(head(std::get<1>(value), limit));
        case 2:
            return 2;
        case 3:
            return 11;
        case 4:
            return 9;
        case 5:
            return header_room + std::get<Bytes>(value).data.size();
        case 6: {
            const Array array = std::get<Array>(value);
            std::size_t room = header_room;
            for (std::size_t i = 0; i < array.count; ++i)
                room += header_room + value_room(array.values[i], limit);
            return room;
        }
        default: {
            const Map map = std::get<Map>(value);
            std::size_t room = header_room;
            for (std::size_t i = 0; i < map.count; ++i)
                room += attribute_room(map.entries[i], limit);
            return room;
        }
    }
}

std::size_t attribute_room(const Attribute& attribute, std::size_t limit) {
    return header_room + text_room(attribute.key) + header_room +
           value_room(attribute.value, limit);
}

// What follows writes at `at`, into memory that is large enough, and returns where it ended. The
// place is handed on by value because a store through char* makes the compiler forget everything
// that has an address.

char* put_byte(char* at, std::uint8_t value) {
    *at = static_cast<char>(value);
    return at + 1;
}

char* put_number(char* at, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) at = put_byte(at, static_cast<std::uint8_t>(value | 0x80));
    return put_byte(at, static_cast<std::uint8_t>(value));
}

// A fixed32 or a fixed64: little-endian.
template <class Number>
char* put_fixed(char* at, Number value) {
    if constexpr (std::endian::native == std::endian::little) {
        std::memcpy(at, &value, sizeof value);
    } else {
        for (std::size_t i = 0; i < sizeof value; ++i) at[i] = static_cast<char>(value >> (8 * i));
    }
    return at + sizeof value;
}

char* put_raw(char* at, std::string_view bytes) {
    if (!bytes.empty()) std::memcpy(at, bytes.data(), bytes.size());
    return at + bytes.size();
}

char* put_bytes(char* at, std::uint8_t tag, std::string_view bytes) {
    return put_raw(put_number(put_byte(at, tag), bytes.size()), bytes);
}

template <std::size_t size>
char* put_identifier(char* at, std::uint8_t tag, const std::array<std::uint8_t, size>& id) {
    at = put_byte(put_byte(at, tag), size);
    std::memcpy(at, id.data(), size);
    return at + size;
}

// Writes the length of what stands between content and `end`, into the `width` bytes that were
// left for it before content; moves content when it takes more or fewer.
template <std::size_t width = 1>
char* put_length(char* content, char* end) {
    const auto size = static_cast<std::size_t>(end - content);
    char* const length = content - width;
    if (width == 1 && size < 0x80) {
        put_byte(length, static_cast<std::uint8_t>(size));
        return end;
    }
    const std::size_t needed = varint_size(size);
    if (needed != width) std::memmove(length + needed, content, size);
    put_number(length, size);
    return length + needed + size;
}

char* put_text(char* at, std::uint8_t tag, std::string_view text, std::size_t limit = no_limit) {
    at = put_byte(at, tag);
    if (text.size() <= limit) {
        // Most texts are ASCII: the length is known, and the check costs no more than the copy.
        char* const content = put_number(at, text.size());
        if (copy_ascii(content, text)) return content + text.size();
    }
    return put_length(at + 1, copy_characters(at + 1, head(text, limit), limit));
}

char* put_attribute(char* at, std::uint8_t field, const Attribute& attribute, std::size_t limit);

// The content of an AnyValue that is a list, out of line because the others are many.
char* put_array(char* at, Array array, std::size_t limit);
char* put_map(char* at, Map map, std::size_t limit);

// An AnyValue.
char* put_value(char* at, std::uint8_t field, const Value& value, std::size_t limit) {
    char* const content = put_byte(at, field) + 1;
    at = content;
    switch (value.index()) {
        case 0:
            break;
        case 1:
            at = put_text(at, tag(1, delimited), *std::get_if<1>(&value), limit);
            break;
        case 2:
            at = put_byte(put_byte(at, tag(2, varint)), *std::get_if<2>(&value));
            break;
        case 3:
            at = put_number(put_byte(at, tag(3, varint)),
                            static_cast<std::uint64_t>(*std::get_if<3>(&value)));
            break;
        case 4:
            at = put_fixed(put_byte(at, tag(4, fixed64)),
                           std::bit_cast<std::uint64_t>(*std::get_if<4>(&value)));
            break;
        case 5:
            at = put_bytes(at, tag(7, delimited), std::get_if<5>(&value)->data);
            break;
        case 6:
            at = put_array(at, *std::get_if<6>(&value), limit);
            break;
        default:
            at = put_map(at, *std::get_if<7>(&value), limit);
    }
    return put_length(content, at);
}

char* put_array(char* at, Array array, std::size_t limit) {
    char* const content = put_byte(at, tag(5, delimited)) + 1;
    at = content;
    for (std::size_t i = 0; i < array.count; ++i)
        at = put_value(at, tag(1, delimited), array.values[i], limit);
    return put_length(content, at);
}

char* put_map(char* at, Map map, std::size_t limit) {
    char* const content = put_byte(at, tag(6, delimited)) + 1;
    at = content;
    for (std::size_t i = 0; i < map.count; ++i)
        at = put_attribute(at, tag(1, delimited), map.entries[i], limit);
    return put_length(content, at);
}

// A KeyValue.
char* put_attribute(char* at, std::uint8_t field, const Attribute& attribute, std::size_t limit) {
    char* const content = put_byte(at, field) + 1;
    at = content;
    if (!attribute.key.empty()) at = put_text(at, tag(1, delimited), attribute.key);
    at = put_value(at, tag(2, delimited), attribute.value, limit);
    return put_length(content, at);
}

// Appends what `put` writes into `room` bytes.
template <class Put>
void append(std::string& out, std::size_t room, Put&& put) {
    const std::size_t before = out.size();
    out.resize(before + room);
    const char* const end = put(out.data() + before);
    out.resize(static_cast<std::size_t>(end - out.data()));
}

void append_text(std::string& out, unsigned field, std::string_view text) {
    if (text.empty()) return;
    append(out, text_room(text),
           [&](char* at) { return put_text(at, tag(field, delimited), text); });
}

void append_message(std::string& out, unsigned field, std::string_view message) {
    append(out, header_room + message.size(),
           [&](char* at) { return put_bytes(at, tag(field, delimited), message); });
}

}  // namespace

void append_attribute(std::string& out, Holder holder, const Attribute& attribute,
                      std::size_t limit) {
    append(out, attribute_room(attribute, limit), [&](char* at) {
        return put_attribute(at, tag(static_cast<unsigned>(holder), delimited), attribute, limit);
    });
}

TraceEncoder::TraceEncoder(const Origin& origin, std::size_t limit, std::size_t value_limit)
    : limit_(std::min(limit, longest_message)), value_limit_(value_limit) {
    std::string scope;
    append_text(scope, 1, origin.scope_name);
    append_text(scope, 2, origin.scope_version);
    append_message(scope_, 1, scope);
    append_message(resource_, 1, origin.resource);
    append_text(scope_url_, 3, origin.scope_schema_url);
    append_text(resource_url_, 3, origin.resource_schema_url);
    front_ = header_room + resource_.size() + header_room + scope_.size();
    end_ = front_;
}

std::size_t TraceEncoder::scope_size(std::size_t spans) const noexcept {
    return scope_.size() + spans + scope_url_.size();
}

std::size_t TraceEncoder::resource_size(std::size_t scope) const noexcept {
    return resource_.size() + 1 + varint_size(scope) + scope + resource_url_.size();
}

std::size_t TraceEncoder::request_size(std::size_t spans) const noexcept {
    const std::size_t resource = resource_size(scope_size(spans));
    return 1 + varint_size(resource) + resource;
}

std::size_t TraceEncoder::size() const noexcept {
    return count_ == 0 ? 0 : request_size(end_ - front_);
}

void TraceEncoder::reserve(std::size_t room) {
    if (end_ + room <= capacity_) return;
    const std::size_t capacity = std::max({first_capacity, capacity_ * 2, end_ + room});
    auto buffer = std::make_unique_for_overwrite<char[]>(capacity);
    if (buffer_) std::memcpy(buffer.get() + front_, buffer_.get() + front_, end_ - front_);
    buffer_ = std::move(buffer);
    capacity_ = capacity;
}

bool TraceEncoder::span(const Span& span) {
    std::size_t room = span_room +
                       3 * (span.trace_state.size() + span.name.size() + span.message.size()) +
                       span.encoded_attributes.size();
    for (const Attribute& attribute : span.attributes)
        room += attribute_room(attribute, value_limit_);
    // Room is at most a few times what will be used, so that this cannot come under the limit.
    if (room / 16 > limit_) return false;
    reserve(room);

    constexpr std::size_t width = 2;  // of the length: spans have 128 to 16383 bytes
    char* const content = put_byte(buffer_.get() + end_, tag(2, delimited)) + width;
    char* at = put_identifier(content, tag(1, delimited), span.trace);
    at = put_identifier(at, tag(2, delimited), span.id);
    if (!span.trace_state.empty()) at = put_text(at, tag(3, delimited), span.trace_state);
    if (std::bit_cast<std::uint64_t>(span.parent) != 0)
        at = put_identifier(at, tag(4, delimited), span.parent);
    if (!span.name.empty()) at = put_text(at, tag(5, delimited), span.name);
    if (span.kind != SpanKind::unspecified)
        at = put_byte(put_byte(at, tag(6, varint)), static_cast<std::uint8_t>(span.kind));
    if (span.start != 0) at = put_fixed(put_byte(at, tag(7, fixed64)), span.start);
    if (span.end != 0) at = put_fixed(put_byte(at, tag(8, fixed64)), span.end);
    at = put_raw(at, span.encoded_attributes);
    for (const Attribute& attribute : span.attributes)
        at = put_attribute(at, tag(9, delimited), attribute, value_limit_);
    if (span.dropped_attributes != 0)
        at = put_number(put_byte(at, tag(10, varint)), span.dropped_attributes);
    char* const status = put_byte(at, tag(15, delimited)) + 1;
    at = status;
    if (!span.message.empty()) at = put_text(at, tag(2, delimited), span.message);
    if (span.status != StatusCode::unset)
        at = put_byte(put_byte(at, tag(3, varint)), static_cast<std::uint8_t>(span.status));
    at = put_length(status, at);
    if (span.flags != 0) at = put_fixed(put_number(at, 16 << 3 | fixed32), span.flags);
    at = put_length<width>(content, at);

    const auto end = static_cast<std::size_t>(at - buffer_.get());
    if (request_size(end - front_) > limit_) return false;
    end_ = end;
    ++count_;
    return true;
}

std::string_view TraceEncoder::finish() {
    if (count_ == 0) return {};
    reserve(scope_url_.size() + resource_url_.size());
    const std::size_t scope = scope_size(end_ - front_);
    const std::size_t resource = resource_size(scope);

    put_raw(put_raw(buffer_.get() + end_, scope_url_), resource_url_);

    const std::size_t begin = front_ - (1 + varint_size(resource) + resource_.size() + 1 +
                                        varint_size(scope) + scope_.size());
    char* at = put_number(put_byte(buffer_.get() + begin, tag(1, delimited)), resource);
    at = put_raw(at, resource_);
    at = put_number(put_byte(at, tag(2, delimited)), scope);
    put_raw(at, scope_);
    return {buffer_.get() + begin, request_size(end_ - front_)};
}

void TraceEncoder::clear() noexcept {
    end_ = front_;
    count_ = 0;
}

}  // namespace tracesock::recorder::otlp
