// Which host names this process's own look-ups returned an address for. No Python here.
//
// HostTable is what calls read, without a lock: entries are added, never changed or removed, but
// for the latest name and the bits that say which rules the names satisfy. HostRegistry remembers
// the pairs, and makes a new table when one is full or the rules have changed.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "audit/policy.hpp"

namespace tracesock::audit {

// A host name as rules have it: lower case, without the last dot. Empty for what is no name: an
// address in any notation, or longer than 253 characters.
std::string normal_host(std::string_view host);

using Name = std::shared_ptr<const std::string>;

class HostTable {
  public:
    struct Entry {
        Ip ip;
        Entry* next = nullptr;
        std::atomic<const std::string*> latest{nullptr};  // the name looked up last
        std::unique_ptr<std::atomic<Word>[]> rules;
    };

    // `words`: of a set of rules.
    explicit HostTable(std::size_t words) : words_(words) {}

    const Entry* find(const Ip& ip) const noexcept;

    // Writers only, one at a time. `rules`: those that the name satisfies.
    void learn(const Ip& ip, const Name& name, const std::vector<Word>& rules);
    bool full() const noexcept;

  private:
    static constexpr std::size_t bucket_count = 4096;
    static std::size_t bucket(const Ip& ip) noexcept;

    std::size_t words_;
    std::array<std::atomic<Entry*>, bucket_count> buckets_{};
    std::vector<std::unique_ptr<Entry>> entries_;
    std::vector<Name> names_;  // kept alive for readers
};

// Writers only, one at a time.
class HostRegistry {
  public:
    // What is remembered at most: addresses, and names of one address.
    static constexpr std::size_t most_addresses = 8192;
    static constexpr std::size_t most_names = 8;

    // Remembers a pair: the name, or null where it was the address's latest already.
    Name learn(const Ip& ip, std::string&& name);
    // A table of all that is remembered. Where that is too much, the half of the addresses that
    // were looked up longest ago is forgotten first; those whose names satisfy no rule before all.
    std::unique_ptr<HostTable> table(const Policy* policy);

  private:
    struct Hash {
        std::size_t operator()(const Ip& ip) const noexcept;
    };
    struct Names {
        std::vector<Name> names;  // the latest last
        std::uint64_t seen = 0;
    };

    void shrink(const Policy* policy);

    std::unordered_map<Ip, Names, Hash> addresses_;
    std::uint64_t clock_ = 0;
};

}  // namespace tracesock::audit
