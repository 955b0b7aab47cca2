#include "audit/hosts.hpp"

#include <algorithm>

namespace tracesock::audit {
namespace {

constexpr std::size_t longest_name = 253;  // RFC 1035 section 2.3.4, as text

std::uint64_t mix(const Ip& ip) noexcept {
    std::uint64_t value = (ip.high ^ (ip.low * 0x9e3779b97f4a7c15)) * 0xff51afd7ed558ccd;
    return value ^ value >> 32;
}

}  // namespace

std::string normal_host(std::string_view host) {
    if (host.ends_with('.')) host.remove_suffix(1);
    if (host.empty() || host.size() > longest_name) return {};
    std::string name(host);
    for (char& each : name)
        if (each >= 'A' && each <= 'Z') each = static_cast<char>(each - 'A' + 'a');
    in_addr inet;
    in6_addr inet6;
    // A zone after '%' makes no name of an address.
    if (name.find(':') != name.npos || inet_pton(AF_INET6, name.c_str(), &inet6) > 0) return {};
#if TRACESOCK_WINDOWS
    if (inet_pton(AF_INET, name.c_str(), &inet) > 0) return {};
#else
    if (inet_aton(name.c_str(), &inet) != 0) return {};
#endif
    return name;
}

std::size_t HostTable::bucket(const Ip& ip) noexcept {
    return mix(ip) % bucket_count;
}

const HostTable::Entry* HostTable::find(const Ip& ip) const noexcept {
    const Entry* entry = buckets_[bucket(ip)].load(std::memory_order_acquire);
    while (entry != nullptr && entry->ip != ip) entry = entry->next;
    return entry;
}

void HostTable::learn(const Ip& ip, const Name& name, const std::vector<Word>& rules) {
    names_.push_back(name);
    if (const Entry* found = find(ip)) {
        auto& entry = const_cast<Entry&>(*found);
        for (std::size_t i = 0; i < words_; ++i)
            entry.rules[i].fetch_or(rules[i], std::memory_order_relaxed);
        entry.latest.store(name.get(), std::memory_order_release);
        return;
    }
    auto entry = std::make_unique<Entry>();
    entry->ip = ip;
    entry->latest.store(name.get(), std::memory_order_relaxed);
    entry->rules = std::make_unique<std::atomic<Word>[]>(words_);
    for (std::size_t i = 0; i < words_; ++i)
        entry->rules[i].store(rules[i], std::memory_order_relaxed);
    std::atomic<Entry*>& head = buckets_[bucket(ip)];
    entry->next = head.load(std::memory_order_relaxed);
    entries_.push_back(std::move(entry));
    head.store(entries_.back().get(), std::memory_order_release);
}

bool HostTable::full() const noexcept {
    return entries_.size() > HostRegistry::most_addresses ||
           names_.size() > 2 * HostRegistry::most_names * HostRegistry::most_addresses;
}

std::size_t HostRegistry::Hash::operator()(const Ip& ip) const noexcept {
    return mix(ip);
}

Name HostRegistry::learn(const Ip& ip, std::string&& name) {
    Names& known = addresses_[ip];
    known.seen = ++clock_;
    if (!known.names.empty() && *known.names.back() == name) return nullptr;
    const auto same = std::find_if(known.names.begin(), known.names.end(),
                                   [&](const Name& each) { return *each == name; });
    Name kept =
        same != known.names.end() ? *same : std::make_shared<const std::string>(std::move(name));
    if (same != known.names.end()) known.names.erase(same);
    if (known.names.size() == most_names) known.names.erase(known.names.begin());
    known.names.push_back(kept);
    return kept;
}

void HostRegistry::shrink(const Policy* policy) {
    struct Rank {
        bool useful;
        std::uint64_t seen;
        Ip ip;
    };
    std::vector<Rank> ranks;
    std::vector<Word> unused(policy != nullptr ? policy->words() : 1, 0);
    for (const auto& [ip, known] : addresses_) {
        bool useful = false;
        for (const Name& name : known.names)
            useful = useful || (policy != nullptr && policy->add_host_rules(*name, unused));
        ranks.push_back({useful, known.seen, ip});
    }
    std::sort(ranks.begin(), ranks.end(), [](const Rank& one, const Rank& other) {
        return one.useful != other.useful ? one.useful : one.seen > other.seen;
    });
    for (std::size_t i = most_addresses / 2; i < ranks.size(); ++i) addresses_.erase(ranks[i].ip);
}

std::unique_ptr<HostTable> HostRegistry::table(const Policy* policy) {
    if (addresses_.size() > most_addresses) shrink(policy);
    const std::size_t words = policy != nullptr ? policy->words() : 1;
    auto table = std::make_unique<HostTable>(words);
    for (const auto& [ip, known] : addresses_) {
        std::vector<Word> rules(words, 0);
        for (const Name& name : known.names) {
            if (policy != nullptr) policy->add_host_rules(*name, rules);
            table->learn(ip, name, rules);
        }
    }
    return table;
}

}  // namespace tracesock::audit
