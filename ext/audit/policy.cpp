#include "audit/policy.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "families/family.hpp"

namespace tracesock::audit {
namespace {

// Words of all rule sets together: 64 MiB.
constexpr std::size_t most_words = std::size_t{8} << 20;

void insert(std::vector<Word>& set, std::size_t rule) {
    set[rule / 64] |= Word{1} << (rule % 64);
}

void remove(std::vector<Word>& set, std::size_t rule) {
    set[rule / 64] &= ~(Word{1} << (rule % 64));
}

// The next value, where there is one.
template <class Integer>
bool increment(Integer& value) noexcept {
    if (value == std::numeric_limits<Integer>::max()) return false;
    ++value;
    return true;
}

bool increment(Ip& value) noexcept {
    if (++value.low != 0) return true;
    return ++value.high != 0;
}

std::uint64_t big_endian(const unsigned char* bytes) noexcept {
    std::uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | bytes[i];
    return value;
}

const std::string default_id = "default";

}  // namespace

Ip Ip::of(const in6_addr& address) noexcept {
    unsigned char bytes[16];
    std::memcpy(bytes, &address, sizeof bytes);
    return {big_endian(bytes), big_endian(bytes + 8)};
}

Peer read_peer(const sockaddr& address, socklen_t length) noexcept {
    Peer peer;
    if (length < offsetof(sockaddr, sa_data)) return peer;
    peer.family = address.sa_family;
    if (peer.family == AF_INET && length >= sizeof(sockaddr_in)) {
        const auto inet = read_address<sockaddr_in>(address, length);
        peer.ip = Ip::of(static_cast<std::uint32_t>(ntohl(inet.sin_addr.s_addr)));
        peer.port = ntohs(inet.sin_port);
        peer.internet = true;
    } else if (peer.family == AF_INET6 && length >= offsetof(sockaddr_in6, sin6_scope_id)) {
        const auto inet6 = read_address<sockaddr_in6>(address, length);
        peer.ip = Ip::of(inet6.sin6_addr);
        peer.port = ntohs(inet6.sin6_port);
        peer.internet = true;
        if (peer.ip.is_mapped()) peer.family = AF_INET;
    }
    if (peer.internet) {
        if (peer.family == AF_INET && peer.ip.inet() == INADDR_ANY) {
            peer.ip = Ip::of(std::uint32_t{INADDR_LOOPBACK});
            peer.wildcard = true;
        } else if (peer.ip == Ip{}) {
            peer.ip = Ip{0, 1};
            peer.wildcard = true;
        }
    }
    return peer;
}

bool parse_prefix(std::string_view text, Prefix& out) noexcept {
    const std::size_t slash = text.find('/');
    const std::string_view host = text.substr(0, slash);
    char buffer[INET6_ADDRSTRLEN];
    if (host.size() >= sizeof buffer) return false;
    std::memcpy(buffer, host.data(), host.size());
    buffer[host.size()] = '\0';
    in_addr inet{};
    in6_addr inet6{};
    int bits = 128;
    int offset = 0;
    if (inet_pton(AF_INET, buffer, &inet) > 0) {
        out.first = Ip::of(static_cast<std::uint32_t>(ntohl(inet.s_addr)));
        offset = 96;
    } else if (inet_pton(AF_INET6, buffer, &inet6) > 0) {
        out.first = Ip::of(inet6);
    } else {
        return false;
    }
    if (slash != text.npos) {
        const std::string_view length = text.substr(slash + 1);
        const auto [end, error] =
            std::from_chars(length.data(), length.data() + length.size(), bits);
        if (error != std::errc() || end != length.data() + length.size() || bits < 0) return false;
        bits += offset;
    }
    if (bits > 128) return false;
    const auto low_ones = [](int count) {
        return count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
    };
    const int host_bits = 128 - bits;
    const std::uint64_t high = host_bits > 64 ? low_ones(host_bits - 64) : 0;
    const std::uint64_t low = low_ones(host_bits);
    out.first = {out.first.high & ~high, out.first.low & ~low};
    out.last = {out.first.high | high, out.first.low | low};
    return true;
}

// --- compiled form ------------------------------------------------------------------------------

std::uint32_t RuleSets::intern(const std::vector<Word>& set) {
    std::string key(reinterpret_cast<const char*>(set.data()), set.size() * sizeof(Word));
    const auto found = places_.find(key);
    if (found != places_.end()) return found->second;
    if (storage_.size() + words_ > most_words)
        throw std::length_error("the rules and their prefixes take more than 64 MiB");
    const auto place = static_cast<std::uint32_t>(storage_.size());
    storage_.insert(storage_.end(), set.begin(), set.end());
    places_.emplace(std::move(key), place);
    return place;
}

template <class Key>
void Intervals<Key>::build(std::vector<Span> spans, const std::vector<Word>& any, RuleSets& sets) {
    // Where a rule begins to hold (+1) or ends to (-1).
    struct Edge {
        Key at;
        int change;
        std::uint32_t rule;
    };
    std::vector<Edge> edges;
    for (const Span& span : spans) {
        edges.push_back({span.first, 1, span.rule});
        Key after = span.last;
        if (increment(after)) edges.push_back({after, -1, span.rule});
    }
    std::sort(edges.begin(), edges.end(),
              [](const Edge& one, const Edge& other) { return one.at < other.at; });
    std::vector<int> depth(sets.words() * 64, 0);
    std::vector<Word> holding = any;
    starts_.assign(1, Key{});
    sets_.assign(1, 0);
    std::size_t next = 0;
    Key at{};
    for (;;) {
        for (; next < edges.size() && edges[next].at == at; ++next) {
            const Edge& edge = edges[next];
            int& count = depth[edge.rule];
            count += edge.change;
            if (count > 0)
                insert(holding, edge.rule);
            else
                remove(holding, edge.rule);
        }
        starts_.back() = at;
        sets_.back() = sets.intern(holding);
        if (next == edges.size()) return;
        at = edges[next].at;
        starts_.push_back(at);
        sets_.push_back(0);
    }
}

template <class Key>
std::uint32_t Intervals<Key>::find(const Key& key) const noexcept {
    // The last start that is not above the key. Halving without a branch to mispredict.
    const Key* base = starts_.data();
    std::size_t size = starts_.size();
    while (size > 1) {
        const std::size_t half = size / 2;
        base = base[half] <= key ? base + half : base;
        size -= half;
    }
    return sets_[static_cast<std::size_t>(base - starts_.data())];
}

Policy::Policy(std::vector<Rule> rules, Action otherwise, bool enforced)
    : rules_(std::move(rules)),
      otherwise_(otherwise),
      enforced_(enforced),
      words_(std::max<std::size_t>(1, (rules_.size() + 63) / 64)),
      sets_(words_),
      counts_(std::make_unique<std::atomic<std::uint64_t>[]>(rules_.size() + 1)) {
    for (std::size_t i = 0; i < rules_.size(); ++i) {
        const Rule& rule = rules_[i];
        if (rule.direction == Direction::ingress) {
            has_ingress_ = true;
            wants_local_port_ = wants_local_port_ || !rule.ports.empty();
        }
        for (const std::string& host : rule.hosts) {
            auto& where = host.starts_with("*.") ? suffixes_[host.substr(2)] : exact_[host];
            where.push_back(static_cast<std::uint32_t>(i));
        }
    }
    tables_ = {build(Direction::egress), build(Direction::ingress)};
    sets_.finish();
}

Policy::Table Policy::build(Direction direction) {
    Table table;
    const std::vector<Word> none(words_, 0);
    std::vector<Word> no_address = none, no_port = none, any_family = none;
    std::vector<Intervals<std::uint32_t>::Span> inet;
    std::vector<Intervals<Ip>::Span> inet6;
    std::vector<Intervals<std::uint16_t>::Span> ports;
    std::vector<std::pair<int, std::vector<Word>>> families;
    for (std::uint32_t i = 0; i < rules_.size(); ++i) {
        const Rule& rule = rules_[i];
        if (rule.direction != direction) continue;
        if (rule.hosts.empty() && rule.prefixes.empty()) insert(no_address, i);
        for (const Prefix& prefix : rule.prefixes) {
            if (prefix.first.is_mapped() && prefix.last.is_mapped())
                inet.push_back({prefix.first.inet(), prefix.last.inet(), i});
            else
                // An IPv6 prefix around the mapped addresses does not denote IPv4: no mapped
                // address is looked for here.
                inet6.push_back({prefix.first, prefix.last, i});
        }
        if (rule.ports.empty()) insert(no_port, i);
        for (const PortRange& range : rule.ports) ports.push_back({range.first, range.last, i});
        if (rule.families.empty()) insert(any_family, i);
    }
    for (std::uint32_t i = 0; i < rules_.size(); ++i) {
        if (rules_[i].direction != direction) continue;
        for (const int family : rules_[i].families) {
            const auto found = std::find_if(families.begin(), families.end(),
                                            [=](const auto& each) { return each.first == family; });
            if (found == families.end()) {
                families.emplace_back(family, any_family);
                insert(families.back().second, i);
            } else {
                insert(found->second, i);
            }
        }
    }
    table.inet.build(std::move(inet), no_address, sets_);
    table.inet6.build(std::move(inet6), no_address, sets_);
    table.ports.build(std::move(ports), no_port, sets_);
    table.no_address = sets_.intern(no_address);
    table.no_port = sets_.intern(no_port);
    table.other = sets_.intern(any_family);
    for (const auto& [family, set] : families)
        table.families.emplace_back(family, sets_.intern(set));
    return table;
}

int Policy::find(Direction direction, const Peer& peer,
                 const std::atomic<Word>* hosts) const noexcept {
    const Table& table = tables_[static_cast<std::size_t>(direction)];
    std::uint32_t by_address = table.no_address;
    std::uint32_t by_port = table.no_port;
    if (!peer.internet) {
        hosts = nullptr;
    } else {
        by_address =
            peer.family == AF_INET ? table.inet.find(peer.ip.inet()) : table.inet6.find(peer.ip);
        by_port = table.ports.find(peer.port);
    }
    std::uint32_t by_family = table.other;
    for (const auto& [family, set] : table.families)
        if (family == peer.family) by_family = set;
    const Word* addresses = sets_.at(by_address);
    const Word* ports = sets_.at(by_port);
    const Word* families = sets_.at(by_family);
    for (std::size_t i = 0; i < words_; ++i) {
        Word there = addresses[i];
        if (hosts != nullptr) there |= hosts[i].load(std::memory_order_relaxed);
        const Word match = there & ports[i] & families[i];
        if (match != 0) return static_cast<int>(i * 64) + std::countr_zero(match);
    }
    return no_rule;
}

const std::string& Policy::id_of(int rule) const noexcept {
    return rule == no_rule ? default_id : rules_[static_cast<std::size_t>(rule)].id;
}

bool Policy::add_host_rules(std::string_view host, std::vector<Word>& set) const {
    bool any = false;
    const auto add = [&](const auto& map, std::string_view name) {
        const auto found = map.find(std::string(name));
        if (found == map.end()) return;
        any = true;
        for (const std::uint32_t rule : found->second) insert(set, rule);
    };
    add(exact_, host);
    for (std::size_t dot = host.find('.'); dot != host.npos; dot = host.find('.', dot + 1))
        add(suffixes_, host.substr(dot + 1));
    return any;
}

}  // namespace tracesock::audit
