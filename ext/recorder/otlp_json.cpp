#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

#include "recorder/otlp.hpp"

namespace tracesock::recorder::otlp {
namespace {

enum class Type : std::uint8_t {
    text,
    identifier,  // bytes, in hexadecimal
    bytes,       // base64
    boolean,
    number,   // a varint of at most 32 bits, an enumeration
    integer,  // int64, as a decimal string
    time,     // fixed64, as a decimal string
    flags,    // fixed32
    real,
    message,
};

struct Message;

struct Field {
    std::uint8_t number;
    Type type;
    bool repeated;
    std::string_view name;
    const Message* message = nullptr;
};

struct Message {
    std::span<const Field> fields;
};

// The messages of common, resource and trace/v1, as far as TraceEncoder writes them.
extern const Message any_value;
extern const Message key_value;

constexpr Field array_fields[] = {{1, Type::message, true, "values", &any_value}};
constexpr Message array_value{array_fields};
constexpr Field map_fields[] = {{1, Type::message, true, "values", &key_value}};
constexpr Message map_value{map_fields};
constexpr Field value_fields[] = {
    {1, Type::text, false, "stringValue"},
    {2, Type::boolean, false, "boolValue"},
    {3, Type::integer, false, "intValue"},
    {4, Type::real, false, "doubleValue"},
    {5, Type::message, false, "arrayValue", &array_value},
    {6, Type::message, false, "kvlistValue", &map_value},
    {7, Type::bytes, false, "bytesValue"},
};
constexpr Message any_value{value_fields};
constexpr Field attribute_fields[] = {{1, Type::text, false, "key"},
                                      {2, Type::message, false, "value", &any_value}};
constexpr Message key_value{attribute_fields};
constexpr Field resource_fields[] = {{1, Type::message, true, "attributes", &key_value}};
constexpr Message resource{resource_fields};
constexpr Field scope_fields[] = {{1, Type::text, false, "name"},
                                  {2, Type::text, false, "version"}};
constexpr Message scope{scope_fields};
constexpr Field status_fields[] = {{2, Type::text, false, "message"},
                                   {3, Type::number, false, "code"}};
constexpr Message status{status_fields};
constexpr Field span_fields[] = {
    {1, Type::identifier, false, "traceId"},
    {2, Type::identifier, false, "spanId"},
    {3, Type::text, false, "traceState"},
    {4, Type::identifier, false, "parentSpanId"},
    {5, Type::text, false, "name"},
    {6, Type::number, false, "kind"},
    {7, Type::time, false, "startTimeUnixNano"},
    {8, Type::time, false, "endTimeUnixNano"},
    {9, Type::message, true, "attributes", &key_value},
    {10, Type::number, false, "droppedAttributesCount"},
    {15, Type::message, false, "status", &status},
    {16, Type::flags, false, "flags"},
};
constexpr Message span{span_fields};
constexpr Field scope_spans_fields[] = {{1, Type::message, false, "scope", &scope},
                                        {2, Type::message, true, "spans", &span},
                                        {3, Type::text, false, "schemaUrl"}};
constexpr Message scope_spans{scope_spans_fields};
constexpr Field resource_spans_fields[] = {
    {1, Type::message, false, "resource", &resource},
    {2, Type::message, true, "scopeSpans", &scope_spans},
    {3, Type::text, false, "schemaUrl"},
};
constexpr Message resource_spans{resource_spans_fields};
constexpr Field request_fields[] = {{1, Type::message, true, "resourceSpans", &resource_spans}};
constexpr Message request_message{request_fields};

// Decoders of protobuf refuse what is deeper.
constexpr int deepest = 100;

class Reader {
  public:
    explicit Reader(std::string_view bytes) : left_(bytes) {}

    bool empty() const { return left_.empty(); }

    bool number(std::uint64_t& value) {
        value = 0;
        for (unsigned shift = 0; shift < 64 && !left_.empty(); shift += 7) {
            const auto byte = static_cast<unsigned char>(left_.front());
            left_.remove_prefix(1);
            value |= std::uint64_t{byte & 0x7fu} << shift;
            if (byte < 0x80) return true;
        }
        return false;
    }

    bool delimited(std::string_view& bytes) {
        std::uint64_t size;
        if (!number(size) || size > left_.size()) return false;
        bytes = left_.substr(0, static_cast<std::size_t>(size));
        left_.remove_prefix(bytes.size());
        return true;
    }

    template <class Number>
    bool fixed(Number& value) {
        if (left_.size() < sizeof value) return false;
        value = 0;
        for (std::size_t i = 0; i < sizeof value; ++i)
            value |= Number{static_cast<unsigned char>(left_[i])} << (8 * i);
        left_.remove_prefix(sizeof value);
        return true;
    }

  private:
    std::string_view left_;
};

class Printer {
  public:
    explicit Printer(std::string& out) : out_(out) {}

    bool message(const Message& message, std::string_view bytes, int depth) {
        if (depth > deepest) return false;
        out_ += '{';
        Reader reader(bytes);
        const Field* last = nullptr;
        while (!reader.empty()) {
            std::uint64_t key;
            if (!reader.number(key)) return false;
            const Field* field = find(message, key >> 3);
            if (field == nullptr) return false;
            if (field == last && field->repeated) {
                out_ += ',';
            } else {
                // Ascending order, so that all elements of a list stand together.
                if (last != nullptr && field->number <= last->number) return false;
                if (last != nullptr) out_ += last->repeated ? "]," : ",";
                out_ += '"';
                out_ += field->name;
                out_ += field->repeated ? "\":[" : "\":";
            }
            last = field;
            if (!value(*field, static_cast<unsigned>(key & 7), reader, depth)) return false;
        }
        if (last != nullptr && last->repeated) out_ += ']';
        out_ += '}';
        return true;
    }

  private:
    static const Field* find(const Message& message, std::uint64_t number) {
        for (const Field& field : message.fields)
            if (field.number == number) return &field;
        return nullptr;
    }

    static unsigned wire_of(Type type) {
        switch (type) {
            case Type::boolean:
            case Type::number:
            case Type::integer:
                return 0;
            case Type::time:
            case Type::real:
                return 1;
            case Type::flags:
                return 5;
            default:
                return 2;
        }
    }

    bool value(const Field& field, unsigned wire, Reader& reader, int depth) {
        if (wire != wire_of(field.type)) return false;
        std::uint64_t number = 0;
        std::uint32_t flags = 0;
        std::string_view bytes;
        switch (wire) {
            case 0:
                if (!reader.number(number)) return false;
                break;
            case 1:
                if (!reader.fixed(number)) return false;
                break;
            case 5:
                if (!reader.fixed(flags)) return false;
                break;
            default:
                if (!reader.delimited(bytes)) return false;
        }
        switch (field.type) {
            case Type::text:
                text(bytes);
                break;
            case Type::identifier:
                hexadecimal(bytes);
                break;
            case Type::bytes:
                base64(bytes);
                break;
            case Type::boolean:
                out_ += number != 0 ? "true" : "false";
                break;
            case Type::number:
                decimal(static_cast<std::uint32_t>(number));
                break;
            case Type::integer:
                quoted(static_cast<std::int64_t>(number));
                break;
            case Type::time:
                quoted(number);
                break;
            case Type::flags:
                decimal(flags);
                break;
            case Type::real:
                real(std::bit_cast<double>(number));
                break;
            case Type::message:
                return message(*field.message, bytes, depth + 1);
        }
        return true;
    }

    template <class Number>
    void decimal(Number number) {
        std::array<char, 32> digits;
        const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
        out_.append(digits.data(), end);
    }

    template <class Number>
    void quoted(Number number) {
        out_ += '"';
        decimal(number);
        out_ += '"';
    }

    void real(double number) {
        if (std::isnan(number)) {
            out_ += "\"NaN\"";
        } else if (std::isinf(number)) {
            out_ += number > 0 ? "\"Infinity\"" : "\"-Infinity\"";
        } else {
            decimal(number);
        }
    }

    void text(std::string_view text) {
        out_ += '"';
        std::size_t written = 0;
        for (std::size_t i = 0; i < text.size(); ++i) {
            const auto c = static_cast<unsigned char>(text[i]);
            if (c >= 0x20 && c != '"' && c != '\\') continue;
            out_ += text.substr(written, i - written);
            written = i + 1;
            if (c >= 0x20) {
                out_ += '\\';
                out_ += static_cast<char>(c);
            } else {
                out_ += "\\u00";
                hexadecimal_digits(c);
            }
        }
        out_ += text.substr(written);
        out_ += '"';
    }

    void hexadecimal_digits(unsigned char byte) {
        constexpr std::string_view digits = "0123456789abcdef";
        out_ += digits[byte >> 4];
        out_ += digits[byte & 15];
    }

    void hexadecimal(std::string_view bytes) {
        out_ += '"';
        for (const char byte : bytes) hexadecimal_digits(static_cast<unsigned char>(byte));
        out_ += '"';
    }

    // RFC 4648, section 4.
    void base64(std::string_view bytes) {
        constexpr std::string_view digits =
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        out_ += '"';
        for (; !bytes.empty(); bytes.remove_prefix(std::min<std::size_t>(3, bytes.size()))) {
            const std::size_t count = std::min<std::size_t>(3, bytes.size());
            std::uint32_t group = 0;
            for (std::size_t i = 0; i < 3; ++i)
                group = group << 8 | (i < count ? static_cast<unsigned char>(bytes[i]) : 0u);
            for (std::size_t i = 0; i < 4; ++i)
                out_ += i <= count ? digits[group >> (18 - 6 * i) & 63] : '=';
        }
        out_ += '"';
    }

    std::string& out_;
};

}  // namespace

bool append_json(std::string& out, std::string_view request) {
    const std::size_t before = out.size();
    if (Printer(out).message(request_message, request, 0)) return true;
    out.resize(before);
    return false;
}

}  // namespace tracesock::recorder::otlp
