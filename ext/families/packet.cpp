// AF_PACKET, packet(7): (ifname, proto[, pkttype[, hatype[, addr]]]), proto in host order.
#include "families/family.hpp"

namespace tracesock {
namespace {

constexpr int af_packet = 17;
constexpr int packet_host = 0;
constexpr std::size_t caller_hardware_address = 8;  // what sockaddr_ll has room for

// struct sockaddr_ll of <linux/if_packet.h>, but with room for the longest hardware address
// (MAX_ADDR_LEN): the kernel writes InfiniBand's 20 bytes where there is room for them.
struct PacketAddress {
    std::uint16_t family;
    std::uint16_t protocol;
    std::int32_t ifindex;
    std::uint16_t hardware_type;
    std::uint8_t packet_type;
    std::uint8_t address_size;
    unsigned char address[32];
};
constexpr std::size_t address_offset = offsetof(PacketAddress, address);
static_assert(address_offset == 12);

bool encode(Context& context, Object* object, Address& out) {
    if (!require_tuple(context, object, "AF_PACKET")) return false;
    const char* given_name = nullptr;
    int protocol = 0;
    int packet_type = packet_host;
    int hardware_type = 0;
    Object* hardware_address = nullptr;
    if (!context.unpack(object, "si|iiO;AF_PACKET address must be a tuple of two to five elements",
                        &given_name, &protocol, &packet_type, &hardware_type, &hardware_address)) {
        if (!context.error_is(Error::overflow)) return false;
        context.clear();
        return context.fail(Error::overflow, "%s(): address argument out of range", context.caller);
    }
    Text bytes{&context};
    if (hardware_address != nullptr) {
        if (context.is_text(hardware_address))
            return context.fail(Error::type, "a bytes-like object is required, not '%.100s'",
                                context.type_name(hardware_address));
        if (!context.path_or_buffer(hardware_address, bytes)) return false;
    }
    // A longer name is cut, as CPython's copy into struct ifreq does.
    char name[IF_NAMESIZE] = {};
    std::memcpy(name, given_name, std::min(std::strlen(given_name), sizeof name - 1));
    const unsigned ifindex = context.ifindex(name);
    if (ifindex == 0) return context.fail_errno();
    if (bytes.size > caller_hardware_address)
        return context.fail(Error::value, "Hardware address must be 8 bytes or less");
    if (protocol < 0 || protocol > 0xffff)
        return context.fail(Error::overflow, "%s(): proto must be 0-65535.", context.caller);
    auto& packet = out.emplace<PacketAddress>(af_packet);
    packet.protocol = htons(static_cast<std::uint16_t>(protocol));
    packet.ifindex = static_cast<std::int32_t>(ifindex);
    packet.hardware_type = static_cast<std::uint16_t>(hardware_type);
    packet.packet_type = static_cast<std::uint8_t>(packet_type);
    packet.address_size = static_cast<std::uint8_t>(bytes.size);
    if (bytes.size > 0) std::memcpy(packet.address, bytes.data, bytes.size);
    out.length = address_offset + caller_hardware_address;
    return true;
}

Object* decode(Context& context, const sockaddr& address, socklen_t length) {
    const auto packet = read_address<PacketAddress>(address, length);
    char name[IF_NAMESIZE] = {};
    const char* ifname =
        packet.ifindex != 0 ? context.ifname(static_cast<unsigned>(packet.ifindex), name) : "";
    // No more than the kernel wrote, whatever it says the interface has.
    const std::size_t written = std::min(length - address_offset, sizeof packet.address);
    const std::size_t size = std::min<std::size_t>(packet.address_size, written);
    return context.build("(siiiy#)", ifname, static_cast<int>(ntohs(packet.protocol)),
                         static_cast<int>(packet.packet_type),
                         static_cast<int>(packet.hardware_type), packet.address,
                         static_cast<std::ptrdiff_t>(size));
}

}  // namespace

extern const Family packet_family;
constinit const Family packet_family{
    .family = af_packet,
    .protocol = any_protocol,
    .name = "packet",
    .smallest = address_offset,
    .largest = sizeof(PacketAddress),
    .encode = encode,
    .decode = decode,
    .flags = 0,
};

}  // namespace tracesock
