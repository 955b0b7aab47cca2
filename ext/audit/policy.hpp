// The policy: rules compiled so that a peer is judged without a lock and without walking the rules.
// No Python here.
#pragma once

#include <array>
#include <atomic>
#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/syscalls.hpp"

namespace tracesock::audit {

enum class Direction : std::uint8_t { egress, ingress };
enum class Action : std::uint8_t { allow, deny };

// An IPv6 address in host order; an IPv4 address as the IPv4-mapped one.
struct Ip {
    std::uint64_t high = 0;
    std::uint64_t low = 0;

    auto operator<=>(const Ip&) const = default;

    static constexpr std::uint64_t mapped_prefix = 0xffff'0000'0000;
    static constexpr Ip of(std::uint32_t inet) noexcept { return {0, mapped_prefix | inet}; }
    static Ip of(const in6_addr& address) noexcept;
    bool is_mapped() const noexcept { return high == 0 && low >> 32 == mapped_prefix >> 32; }
    std::uint32_t inet() const noexcept { return static_cast<std::uint32_t>(low); }
};

// What an encoded address denotes. `family` is AF_INET for an IPv4-mapped IPv6 address, and the
// unspecified address is the loopback address, which connect(2) makes of it.
struct Peer {
    int family = AF_UNSPEC;
    bool internet = false;
    std::uint16_t port = 0;
    Ip ip;
    bool wildcard = false;  // it was the unspecified address
};

Peer read_peer(const sockaddr& address, socklen_t length) noexcept;

struct Prefix {
    Ip first;
    Ip last;
};
// The addresses of an IPv4 or IPv6 prefix given as text ("10.0.0.0/8"), without its host bits;
// false where it is none.
bool parse_prefix(std::string_view text, Prefix& out) noexcept;

struct PortRange {
    std::uint16_t first;
    std::uint16_t last;
};

// A rule's conditions; an empty list is any. `hosts` and `prefixes` are alternatives of each other.
struct Rule {
    std::string id;
    Action action = Action::deny;
    Direction direction = Direction::egress;
    std::vector<std::string> hosts;  // in lower case and IDNA form; "*." before a domain
    std::vector<Prefix> prefixes;
    std::vector<PortRange> ports;
    std::vector<int> families;
};

inline constexpr int no_rule = -1;

// A set of rules of one direction, as bits in words.
using Word = std::uint64_t;

class RuleSets;

// Which rules hold for each of the values between two bounds.
template <class Key>
class Intervals {
  public:
    struct Span {
        Key first;
        Key last;
        std::uint32_t rule;
    };
    // `any`: the rules that hold everywhere.
    void build(std::vector<Span> spans, const std::vector<Word>& any, RuleSets& sets);
    std::uint32_t find(const Key& key) const noexcept;

  private:
    std::vector<Key> starts_;
    std::vector<std::uint32_t> sets_;
};

// Sets of rules side by side in memory, each once.
class RuleSets {
  public:
    explicit RuleSets(std::size_t words) : words_(words) {}
    // The place of a set. Throws std::length_error where all of them would take too much memory.
    std::uint32_t intern(const std::vector<Word>& set);
    const Word* at(std::uint32_t place) const noexcept { return storage_.data() + place; }
    std::size_t words() const noexcept { return words_; }
    // Frees what only making the sets needed.
    void finish() noexcept { places_.clear(); }

  private:
    std::size_t words_;
    std::vector<Word> storage_;
    std::unordered_map<std::string, std::uint32_t> places_;
};

class Policy {
  public:
    // Throws std::length_error where the compiled form would take too much memory.
    Policy(std::vector<Rule> rules, Action otherwise, bool enforced);

    // The rule that decides, or no_rule: the default. `hosts`: the rules whose host names denote
    // the peer, null for none.
    int find(Direction direction, const Peer& peer, const std::atomic<Word>* hosts) const noexcept;
    Action action_of(int rule) const noexcept {
        return rule == no_rule ? otherwise_ : rules_[static_cast<std::size_t>(rule)].action;
    }
    const std::string& id_of(int rule) const noexcept;

    // Whether a direction is judged: ingress only by a policy that has a rule for it.
    bool judges(Direction direction) const noexcept {
        return direction == Direction::egress || has_ingress_;
    }
    // Whether an ingress rule names ports, for which the local address must be read.
    bool wants_local_port() const noexcept { return wants_local_port_; }
    bool enforced() const noexcept { return enforced_; }
    bool has_hosts() const noexcept { return !exact_.empty() || !suffixes_.empty(); }
    std::size_t words() const noexcept { return words_; }
    const std::vector<Rule>& rules() const noexcept { return rules_; }

    // Adds the rules that have `host` (as Rule::hosts is written) to the set; whether there are
    // any.
    bool add_host_rules(std::string_view host, std::vector<Word>& set) const;

    // --- counters ------------------------------------------------------------------------------
    // How often each rule decided; the last is the default's.
    void count(int rule) const noexcept {
        counts_[rule == no_rule ? rules_.size() : static_cast<std::size_t>(rule)].fetch_add(
            1, std::memory_order_relaxed);
    }
    std::uint64_t count_of(int rule) const noexcept {
        return counts_[rule == no_rule ? rules_.size() : static_cast<std::size_t>(rule)].load(
            std::memory_order_relaxed);
    }

  private:
    // The rules of one direction.
    struct Table {
        Intervals<std::uint32_t> inet;
        Intervals<Ip> inet6;
        Intervals<std::uint16_t> ports;
        std::uint32_t no_address = 0;  // rules without host and prefix
        std::uint32_t no_port = 0;     // rules without port
        std::uint32_t other = 0;       // rules without family
        std::vector<std::pair<int, std::uint32_t>> families;
    };

    Table build(Direction direction);

    std::vector<Rule> rules_;
    Action otherwise_;
    bool enforced_;
    bool has_ingress_ = false;
    bool wants_local_port_ = false;
    std::size_t words_;
    RuleSets sets_;
    std::array<Table, 2> tables_;
    std::unordered_map<std::string, std::vector<std::uint32_t>> exact_;
    std::unordered_map<std::string, std::vector<std::uint32_t>> suffixes_;
    std::unique_ptr<std::atomic<std::uint64_t>[]> counts_;
};

}  // namespace tracesock::audit
