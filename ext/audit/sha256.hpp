// SHA-256 (FIPS 180-4), for the chain of a log: hashlib's would need the interpreter's lock.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace tracesock::audit {

class Sha256 {
  public:
    void update(std::string_view data) noexcept;
    // In hexadecimal. Ends the message: nothing may be added.
    std::array<char, 64> digest() noexcept;

  private:
    static constexpr std::size_t block_size = 64;

    void take(const unsigned char* block) noexcept;

    std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<unsigned char, block_size> rest_{};  // what does not fill a block yet
    std::uint64_t size_ = 0;                        // of the message, in bytes
};

}  // namespace tracesock::audit
