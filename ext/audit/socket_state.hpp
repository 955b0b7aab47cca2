// What the audit keeps in each socket.
#pragma once

#include <atomic>
#include <cstdint>

namespace tracesock::audit {

struct SocketState {
    std::atomic<std::uint32_t> judged{0};  // generation of the policy that allowed its peer
    std::atomic<std::int64_t> opened{0};   // ns of the monotonic clock; 0: not known
    std::atomic<std::int64_t> pending{0};  // when a connect began that is not finished; 0: none
    std::atomic<std::uint64_t> sent{0};    // bytes, while records are kept
    std::atomic<std::uint64_t> received{0};
};

}  // namespace tracesock::audit
