// Bytes that are mostly few: an internet address as the kernel has it takes no allocation, nor does
// a host name of the usual length.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

namespace tracesock::recorder {

class ShortBytes {
  public:
    ShortBytes() = default;
    ShortBytes(const ShortBytes&) = delete;
    ShortBytes& operator=(const ShortBytes& other) {
        return *this = static_cast<std::string_view>(other);
    }
    // `bytes` are not this one's own.
    ShortBytes& operator=(std::string_view bytes) {
        std::unique_ptr<char[]> more;
        if (bytes.size() > few_.size()) more = std::make_unique_for_overwrite<char[]>(bytes.size());
        char* const to = more ? more.get() : few_.data();
        if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
        more_ = std::move(more);
        size_ = static_cast<std::uint32_t>(bytes.size());
        return *this;
    }

    operator std::string_view() const noexcept {
        return {more_ ? more_.get() : few_.data(), size_};
    }
    bool empty() const noexcept { return size_ == 0; }

  private:
    std::unique_ptr<char[]> more_;
    std::uint32_t size_ = 0;
    std::array<char, 28> few_;  // sockaddr_in6
};

}  // namespace tracesock::recorder
