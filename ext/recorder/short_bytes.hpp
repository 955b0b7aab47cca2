// Bytes that are mostly few: an internet address as the kernel has it takes no allocation, nor does
// a host name of the usual length.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

namespace tracesock::recorder {

template <std::size_t most_few>
class ShortBytes {
  public:
    ShortBytes() = default;
    ShortBytes(const ShortBytes&) = delete;
    ShortBytes& operator=(const ShortBytes& other) {
        return *this = static_cast<std::string_view>(other);
    }
    ~ShortBytes() { drop(); }
    // `bytes` are not this one's own.
    ShortBytes& operator=(std::string_view bytes) {
        if (bytes.size() > most_few) {
            auto more = std::make_unique_for_overwrite<char[]>(bytes.size());
            std::memcpy(more.get(), bytes.data(), bytes.size());
            drop();
            const char* const elsewhere = more.release();
            std::memcpy(bytes_.data(), &elsewhere, sizeof elsewhere);
        } else {
            drop();
            if (!bytes.empty()) std::memcpy(bytes_.data(), bytes.data(), bytes.size());
        }
        size_ = static_cast<std::uint32_t>(bytes.size());
        return *this;
    }

    operator std::string_view() const noexcept {
        return {size_ > most_few ? more() : bytes_.data(), size_};
    }
    bool empty() const noexcept { return size_ == 0; }

  private:
    char* more() const noexcept {
        char* elsewhere;
        std::memcpy(&elsewhere, bytes_.data(), sizeof elsewhere);
        return elsewhere;
    }
    void drop() noexcept {
        if (size_ > most_few) const std::unique_ptr<char[]> ended(more());
    }

    std::uint32_t size_ = 0;
    std::array<char, most_few> bytes_;  // these, or where more of them are
    static_assert(sizeof bytes_ >= sizeof(char*));
};

}  // namespace tracesock::recorder
