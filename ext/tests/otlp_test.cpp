// The OTLP encoder without an interpreter: known bytes, limits, and a fuzz of the encoder and of
// the JSON writer with a fixed seed. Prints what it checked; exits with 1 where something was
// wrong. Meant to run under the address and undefined behaviour sanitizers.
//
// `otlp_test bench`, without sanitizers, prints what a span costs.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "recorder/otlp.hpp"

namespace {

using namespace std::literals;
using namespace tracesock::recorder::otlp;

long checks = 0;
long failures = 0;

void check(bool holds, const std::string& what) {
    ++checks;
    if (holds) return;
    ++failures;
    std::printf("failed: %s\n", what.c_str());
}

std::string repeated(std::string_view text, std::size_t times) {
    std::string out;
    for (std::size_t i = 0; i < times; ++i) out += text;
    return out;
}

Span a_span(std::string_view name = "socket send 192.0.2.1:443") {
    Span span;
    span.trace = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    span.id = {0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7};
    span.name = name;
    span.start = 1'700'000'000'000'000'001;
    span.end = 1'700'000'000'000'000'301;
    return span;
}

std::string json_of(std::string_view request) {
    std::string out;
    return append_json(out, request) ? out : "refused";
}

std::string json_of(const Span& span) {
    TraceEncoder encoder(Origin{});
    check(encoder.span(span), "a span is taken");
    const std::string_view request = encoder.finish();
    check(request.size() == encoder.size(), "size is the request's");
    return json_of(request);
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// Table 3-7 of the Unicode Standard, written as comparisons of the whole character.
bool is_utf8(std::string_view text) {
    for (std::size_t i = 0; i < text.size();) {
        const auto at = [&](std::size_t offset) -> std::uint32_t {
            return i + offset < text.size() ? static_cast<unsigned char>(text[i + offset]) : 0u;
        };
        const auto tail = [&](std::size_t offset) { return (at(offset) & 0xc0) == 0x80; };
        std::uint32_t point = at(0);
        std::size_t size = 1;
        if (point >= 0x80) {
            if ((point & 0xe0) == 0xc0 && tail(1)) {
                point = (point & 0x1f) << 6 | (at(1) & 0x3f);
                size = 2;
            } else if ((point & 0xf0) == 0xe0 && tail(1) && tail(2)) {
                point = (point & 0x0f) << 12 | (at(1) & 0x3f) << 6 | (at(2) & 0x3f);
                size = 3;
            } else if ((point & 0xf8) == 0xf0 && tail(1) && tail(2) && tail(3)) {
                point = (point & 0x07) << 18 | (at(1) & 0x3f) << 12 | (at(2) & 0x3f) << 6 |
                        (at(3) & 0x3f);
                size = 4;
            } else {
                return false;
            }
            constexpr std::uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
            if (point < least[size] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
                return false;
        }
        i += size;
    }
    return true;
}

void known_bytes() {
    std::string resource;
    append_attribute(resource, Holder::resource, {"a", "b"});
    check(resource == "\x0a\x08\x0a\x01"s + "a\x12\x03\x0a\x01" + "b", "a resource's attribute");

    Span span = a_span("n");
    span.parent = {1, 2, 3, 4, 5, 6, 7, 8};
    span.trace_state = "k=v";
    span.start = 1;
    span.end = 0x0102030405060708;
    const Attribute attributes[] = {{"i", std::int64_t{300}}, {"t", true}, {"d", 1.0}};
    span.attributes = attributes;
    span.dropped_attributes = 2;
    span.status = StatusCode::error;
    span.message = "m";
    span.flags = knows_remote | remote_parent;
    std::string encoded;
    append_attribute(encoded, Holder::span, {"e", ""});
    span.encoded_attributes = encoded;

    TraceEncoder encoder({resource, "r", "s", "1", "u"});
    check(encoder.finish().empty() && encoder.size() == 0, "no span, no request");
    check(encoder.span(span), "a span is taken");
    const std::string identifiers =
        "\x0a\x10\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
        "\x12\x08\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7"s;
    const std::string body =
        identifiers + "\x1a\x03k=v" + "\x22\x08\x01\x02\x03\x04\x05\x06\x07\x08"s + "\x2a\x01n" +
        "\x30\x01" + "\x39\x01\x00\x00\x00\x00\x00\x00\x00"s +
        "\x41\x08\x07\x06\x05\x04\x03\x02\x01" + "\x4a\x07\x0a\x01" + "e\x12\x02\x0a\x00"s +
        "\x4a\x08\x0a\x01i\x12\x03\x18\xac\x02" + "\x4a\x07\x0a\x01t\x12\x02\x10\x01" +
        "\x4a\x0e\x0a\x01" + "d\x12\x09\x21\x00\x00\x00\x00\x00\x00\xf0\x3f"s + "\x50\x02" +
        "\x7a\x05\x12\x01m\x18\x02" + "\x85\x01\x00\x03\x00\x00"s;
    const auto message = [](char tag, const std::string& content) {
        std::string out(1, tag);
        if (content.size() >= 128) out += static_cast<char>(content.size() % 128 + 128);
        out += static_cast<char>(content.size() >= 128 ? content.size() / 128 : content.size());
        return out + content;
    };
    const std::string scope = message('\x0a',
                                      "\x0a\x01s\x12\x01"
                                      "1");
    const std::string scope_spans = message('\x12', scope + message('\x12', body) + "\x1a\x01u");
    const std::string request =
        message('\x0a', message('\x0a', resource) + scope_spans + "\x1a\x01r");
    check(encoder.finish() == request, "the bytes of a request");
    check(encoder.finish() == request, "finish may be called again");
    check(encoder.size() == request.size() && encoder.count() == 1, "size and count");

    encoder.clear();
    check(encoder.finish().empty() && encoder.count() == 0, "a cleared encoder");
    check(encoder.span(span) && encoder.finish() == request, "the next request");
}

void minimal() {
    check(json_of(a_span("")) ==
              R"({"resourceSpans":[{"resource":{},"scopeSpans":[{"scope":{},"spans":[{)"
              R"("traceId":"000102030405060708090a0b0c0d0e0f","spanId":"a0a1a2a3a4a5a6a7",)"
              R"("kind":1,"startTimeUnixNano":"1700000000000000001",)"
              R"("endTimeUnixNano":"1700000000000000301","status":{},"flags":256}]}]}]})",
          "the least span");
}

// Each length at which a varint grows, of a text and of the span around it.
void lengths() {
    for (const std::size_t boundary : {0, 60, 128, 16384, 2097152}) {
        for (std::size_t size = boundary < 100 ? 0 : boundary - 100; size < boundary + 3; ++size) {
            const std::string name(size, 'x');
            const std::string json = json_of(a_span(name));
            check(contains(json, "\"kind\":1") && contains(json, "\"flags\":256"), "whole span");
            check(size == 0 || contains(json, "\"name\":\"" + name + "\""),
                  "name of " + std::to_string(size));
            if (boundary > 100'000) size += 30;
        }
    }
}

void texts() {
    const std::pair<std::string, std::string> cases[] = {
        {"\xff", "\xef\xbf\xbd"},
        {"\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},  // overlong
        {"\xe2\x82", "\xef\xbf\xbd"},              // cut
        {"\xe2\x82x", "\xef\xbf\xbdx"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},  // a surrogate
        {"\xf0\x9f\x98", "\xef\xbf\xbd"},
        {"\xf4\x90\x80\x80", repeated("\xef\xbf\xbd", 4)},  // beyond U+10FFFF
        {"a\xf0\x9f\x98\x80z", "a\xf0\x9f\x98\x80z"},
        {"caf\xc3\xa9", "caf\xc3\xa9"},
    };
    for (const auto& [text, expected] : cases) {
        for (const std::size_t pad : {0, 1, 7, 8, 9, 130}) {
            const std::string before(pad, 'p');
            const std::string name = before + text;
            const Attribute attribute{name, std::string_view(name)};
            Span span = a_span(name);
            span.attributes = {&attribute, 1};
            span.message = name;
            const std::string json = json_of(span);
            const std::string shown = "\"" + before + expected + "\"";
            for (const char* field : {"\"name\":", "\"key\":", "\"stringValue\":", "\"message\":"})
                check(contains(json, field + shown), "text " + std::to_string(pad) + field);
        }
    }
    const std::string control = "\"\\\x01\n\x7f/"s + '\0';
    check(contains(json_of(a_span(control)), R"("name":"\"\\\u0001\u000a)"
                                             "\x7f/"
                                             R"(\u0000")"),
          "characters that JSON escapes");
}

void values() {
    const Value items[] = {"a", std::int64_t{-1}, false, Value{}};
    const Attribute entries[] = {{"k", Array{items, 4}}, {"", Bytes{"\x00\xff\x10"sv}}};
    const std::pair<Value, std::string> cases[] = {
        {std::numeric_limits<std::int64_t>::min(), R"({"intValue":"-9223372036854775808"})"},
        {std::numeric_limits<std::int64_t>::max(), R"({"intValue":"9223372036854775807"})"},
        {0.1, R"({"doubleValue":0.1})"},
        {std::numeric_limits<double>::infinity(), R"({"doubleValue":"Infinity"})"},
        {-std::numeric_limits<double>::infinity(), R"({"doubleValue":"-Infinity"})"},
        {std::numeric_limits<double>::quiet_NaN(), R"({"doubleValue":"NaN"})"},
        {false, R"({"boolValue":false})"},
        {"", R"({"stringValue":""})"},
        {Value{}, "{}"},
        {Array{nullptr, 0}, R"({"arrayValue":{}})"},
        {Bytes{"a"}, R"({"bytesValue":"YQ=="})"},
        {Bytes{"ab"}, R"({"bytesValue":"YWI="})"},
        {Map{entries, 2},
         R"({"kvlistValue":{"values":[{"key":"k","value":{"arrayValue":{"values":[)"
         R"({"stringValue":"a"},{"intValue":"-1"},{"boolValue":false},{}]}}},)"
         R"({"value":{"bytesValue":"AP8Q"}}]}})"},
    };
    for (const auto& [value, expected] : cases) {
        const Attribute attribute{"v", value};
        Span span = a_span();
        span.attributes = {&attribute, 1};
        const std::string part = R"("attributes":[{"key":"v","value":)" + expected + "}]";
        check(contains(json_of(span), part), expected);

        std::string encoded;
        append_attribute(encoded, Holder::span, attribute);
        span.attributes = {};
        span.encoded_attributes = encoded;
        check(contains(json_of(span), part), "encoded before: " + expected);
    }
}

void limits() {
    // Characters of attributes' texts, in lists too.
    const std::string smile = repeated("\xf0\x9f\x98\x80", 5);
    const Value items[] = {std::string_view(smile), "abcdef"};
    const Attribute attributes[] = {
        {"longer key", "abcdef"}, {"s", std::string_view(smile)}, {"l", Array{items, 2}}};
    TraceEncoder cut(Origin{}, request_limit, 3);
    Span span = a_span("longer name");
    span.attributes = attributes;
    check(cut.span(span), "cut");
    const std::string three = repeated("\xf0\x9f\x98\x80", 3);
    const std::string json = json_of(cut.finish());
    check(contains(json, R"({"key":"longer key","value":{"stringValue":"abc"}})"), "cut text");
    check(contains(json, "\"s\",\"value\":{\"stringValue\":\"" + three + "\"}"), "cut characters");
    check(contains(json, "[{\"stringValue\":\"" + three + "\"},{\"stringValue\":\"abc\"}]"),
          "cut list");
    check(contains(json, "longer name"), "names are whole");
    std::string none;
    append_attribute(none, Holder::span, {"k", "abc"}, 0);
    check(none == "\x4a\x07\x0a\x01k\x12\x02\x0a\x00"s, "nothing left");

    // Bytes of the request.
    const Origin origin{"", "resource url", "scope", "1", "scope url"};
    TraceEncoder one(origin);
    check(one.span(a_span()), "one");
    const std::string request(one.finish());
    TraceEncoder exact(origin, request.size());
    check(exact.span(a_span()), "fits exactly");
    check(!exact.span(a_span()), "a second does not fit");
    check(exact.count() == 1 && exact.finish() == request, "the request is as it was");
    exact.clear();
    check(exact.span(a_span()), "fits again");
    TraceEncoder small(origin, request.size() - 1);
    check(!small.span(a_span()) && small.finish().empty(), "one byte short");
    check(!small.span(a_span(std::string(1 << 20, 'x'))), "far too long");
}

void growth() {
    constexpr std::size_t limit = 1 << 20;
    TraceEncoder encoder({"", "", "scope", "", ""}, limit);
    std::size_t added = 0;
    while (encoder.span(a_span("span " + std::to_string(added)))) ++added;
    check(added > 10'000 && encoder.count() == added, "many spans");
    const std::string_view request = encoder.finish();
    check(request.size() <= limit && request.size() > limit - 200, "full");
    const std::string json = json_of(request);
    check(contains(json, "\"span 0\"") &&
              contains(json, "\"span " + std::to_string(added - 1) + "\""),
          "all of them");
    check(static_cast<std::size_t>(std::count(json.begin(), json.end(), '{')) == added * 2 + 5,
          "each once");
}

using Random = std::mt19937;

std::size_t below(Random& random, std::size_t bound) {
    return random() % bound;
}

std::string any_text(Random& random) {
    std::string text;
    constexpr std::size_t sizes[] = {4, 20, 140, 300};
    const std::size_t size = below(random, sizes[below(random, 4)]);
    const bool ascii = below(random, 2) != 0;
    for (std::size_t i = 0; i < size; ++i)
        text += static_cast<char>(ascii ? random() % 128 : random() % 256);
    return text;
}

struct Pool {
    std::deque<std::string> texts;
    std::deque<std::vector<Value>> arrays;
    std::deque<std::vector<Attribute>> maps;

    std::string_view text(Random& random) { return texts.emplace_back(any_text(random)); }

    Value value(Random& random, int depth) {
        switch (below(random, depth > 0 ? 8 : 6)) {
            case 0:
                return text(random);
            case 1:
                return Bytes{text(random)};
            case 2:
                return (random() & 1) != 0;
            case 3: {
                const std::uint64_t wide = std::uint64_t{random()} << 32 | random();
                return static_cast<std::int64_t>(wide >> below(random, 64));
            }
            case 4:
                return static_cast<double>(random()) / 7;
            case 5:
                return {};
            case 6: {
                std::vector<Value> items(below(random, 5));
                for (Value& item : items) item = value(random, depth - 1);
                const std::vector<Value>& kept = arrays.emplace_back(std::move(items));
                return Array{kept.data(), kept.size()};
            }
            default: {
                std::vector<Attribute> entries(below(random, 5));
                for (Attribute& entry : entries) entry = attribute(random, depth - 1);
                const std::vector<Attribute>& kept = maps.emplace_back(std::move(entries));
                return Map{kept.data(), kept.size()};
            }
        }
    }

    Attribute attribute(Random& random, int depth) { return {text(random), value(random, depth)}; }
};

void fuzz(Random& random, int rounds) {
    for (int round = 0; round < rounds; ++round) {
        Pool pool;
        const std::size_t limit = below(random, 3) != 0 ? no_limit : below(random, 50);
        TraceEncoder encoder(
            {"", pool.text(random), pool.text(random), pool.text(random), pool.text(random)},
            below(random, 3) != 0 ? request_limit : 2000, limit);
        std::size_t taken = 0;
        const std::size_t spans = 1 + below(random, 4);
        for (std::size_t i = 0; i < spans; ++i) {
            Span span = a_span(pool.text(random));
            span.trace_state = pool.text(random);
            span.message = pool.text(random);
            span.dropped_attributes = static_cast<std::uint32_t>(random() >> below(random, 32));
            span.kind = static_cast<SpanKind>(below(random, 6));
            span.status = static_cast<StatusCode>(below(random, 3));
            std::vector<Attribute> attributes(below(random, 8));
            for (Attribute& attribute : attributes) attribute = pool.attribute(random, 3);
            span.attributes = attributes;
            std::string encoded;
            append_attribute(encoded, Holder::span, pool.attribute(random, 3), limit);
            span.encoded_attributes = encoded;
            taken += encoder.span(span);
        }
        std::string request(encoder.finish());
        check(request.size() == encoder.size() && encoder.count() == taken, "fuzz: size");
        if (taken == 0) continue;
        const std::string json = json_of(request);
        check(json != "refused" && is_utf8(json), "fuzz: JSON");

        // Bytes that no encoder made: an answer, and nothing else.
        std::string out = "before";
        check(
            !append_json(out, std::string_view(request).substr(0, below(random, request.size()))) ||
                out.size() == 8,
            "fuzz: cut request");
        for (int i = 0; i < 3; ++i)
            request[below(random, request.size())] = static_cast<char>(random());
        out = "before";
        check(append_json(out, request) || out == "before", "fuzz: changed request");
    }
}

void hostile_json() {
    check(json_of(""sv) == "{}", "an empty request");
    check(json_of("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"sv) == "refused", "a long length");
    check(json_of("\x0a"sv) == "refused", "no length");
    check(json_of("\x08\x01"sv) == "refused", "another wire type");
    check(json_of("\x12\x00"sv) == "refused", "an unknown field");
    std::string nested;
    const auto wrap = [&](char tag) {
        std::string size;
        std::size_t left = nested.size();
        for (; left >= 128; left /= 128) size += static_cast<char>(left % 128 + 128);
        size += static_cast<char>(left);
        nested = tag + size + nested;
    };
    for (int i = 0; i < 10'000; ++i) {  // lists in lists
        wrap('\x0a');
        wrap('\x2a');
    }
    for (const char tag : {'\x12', '\x0a', '\x0a', '\x0a'}) wrap(tag);
    check(json_of(nested) == "refused", "too deep");
}

void bench() {
    using Clock = std::chrono::steady_clock;
    const std::string_view name = "socket send 192.0.2.17:50123";
    const Attribute all[] = {{"network.peer.address", "192.0.2.17"},
                             {"network.peer.port", std::int64_t{50123}},
                             {"network.transport", "tcp"},
                             {"network.type", "ipv4"},
                             {"tracesock.send.size", std::int64_t{1448}},
                             {"tracesock.send.calls", std::int64_t{1}}};
    std::string peer;
    for (int i = 0; i < 4; ++i) append_attribute(peer, Holder::span, all[i]);
    Span plain = a_span(name);
    plain.parent = {1, 2, 3, 4, 5, 6, 7, 8};
    plain.attributes = all;
    Span cached = plain;
    cached.encoded_attributes = peer;
    cached.attributes = std::span(all).subspan(4);

    constexpr int batch = 512, batches = 40;
    TraceEncoder encoder({"", "https://opentelemetry.io/schemas/1.44.0", "tracesock", "0.1.0", ""});
    for (const auto& [what, span] :
         {std::pair("six attributes", &plain), std::pair("four of them cached", &cached)}) {
        auto best = Clock::duration::max();
        std::size_t bytes = 0;
        for (int run = 0; run < 200; ++run) {
            const auto start = Clock::now();
            for (int i = 0; i < batches; ++i) {
                encoder.clear();
                for (int j = 0; j < batch; ++j) {
                    ++span->start;
                    encoder.span(*span);
                }
                bytes = encoder.finish().size();
            }
            best = std::min(best, Clock::now() - start);
        }
        const double ns = std::chrono::duration<double, std::nano>(best).count();
        std::printf("%-20s %5.1f ns a span of %zu bytes\n", what, ns / batch / batches,
                    bytes / batch);
    }
    std::string json;
    const std::string_view request = encoder.finish();
    auto best = Clock::duration::max();
    for (int run = 0; run < 50; ++run) {
        json.clear();
        const auto start = Clock::now();
        append_json(json, request);
        best = std::min(best, Clock::now() - start);
    }
    const double ns = std::chrono::duration<double, std::nano>(best).count();
    std::printf("%-20s %5.1f ns a span of %zu bytes\n", "JSON", ns / batch, json.size() / batch);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc > 1 && argv[1] == "bench"sv) {
        bench();
        return 0;
    }
    known_bytes();
    minimal();
    lengths();
    texts();
    values();
    limits();
    growth();
    hostile_json();
    const long named = checks;
    Random random;
    fuzz(random, 1000);
    std::printf("%ld checks, %ld fuzzed, %ld failed\n", named, checks - named, failures);
    return failures == 0 ? 0 : 1;
}
