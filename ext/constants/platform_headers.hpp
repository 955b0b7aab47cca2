// Every header that defines public constants, under the names that the module uses. Needed where
// the table has no literals for a platform, and to check those that it has against the headers.
#pragma once

#if defined(_WIN32)

#include <winsock2.h>
// the others need it before them
#include <hvsocket.h>
#include <mstcpip.h>
#include <ws2bth.h>
#include <ws2tcpip.h>

// MinGW has WSANO_DATA here, Microsoft's headers and the standard library's builds this.
#undef EAI_NODATA
#define EAI_NODATA EAI_NONAME
#define AF_BLUETOOTH AF_BTH
#define BTPROTO_RFCOMM BTHPROTO_RFCOMM
#define TCP_QUICKACK SIO_TCP_SET_ACK_FREQUENCY
#define SHUT_RD SD_RECEIVE
#define SHUT_WR SD_SEND
#define SHUT_RDWR SD_BOTH

#else

#if defined(__APPLE__)
#define __APPLE_USE_RFC_3542 1  // without it <netinet6/in6.h> hides the options of RFC 3542
#endif

#include <arpa/inet.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#if __has_include(<net/ethernet.h>)
#include <net/ethernet.h>
#endif

#if defined(__linux__)
#include <linux/can.h>
#include <linux/can/raw.h>
#include <linux/if_alg.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netlink.h>
#include <linux/tipc.h>
#include <linux/vm_sockets.h>
#include <netpacket/packet.h>
#if __has_include(<linux/can/j1939.h>)
#include <linux/can/j1939.h>
#endif
#endif

#if defined(__APPLE__)
#include <sys/kern_control.h>
#if __has_include(<sys/sys_domain.h>)
#include <sys/sys_domain.h>
#endif
#endif

#if __has_include(<netlink/netlink.h>) && defined(__FreeBSD__)
#include <netlink/netlink.h>
#endif

#if __has_include(<netcan/can.h>)
#include <netcan/can.h>
#endif

#if __has_include(<netbt/bluetooth.h>)
#include <netbt/bluetooth.h>
#include <netbt/hci.h>
#include <netbt/l2cap.h>
#include <netbt/rfcomm.h>
#include <netbt/sco.h>
#define SOL_HCI BTPROTO_HCI
#define SOL_L2CAP BTPROTO_L2CAP
#define SOL_RFCOMM BTPROTO_RFCOMM
#define SOL_SCO BTPROTO_SCO
#define HCI_DATA_DIR SO_HCI_DIRECTION
#elif __has_include(<netgraph/bluetooth/include/ng_btsocket.h>)
#include <stdlib.h>
#include <strings.h>
#include <sys/bitstring.h>
#define L2CAP_SOCKET_CHECKED
#include <netgraph/bluetooth/include/ng_hci.h>
#include <netgraph/bluetooth/include/ng_l2cap.h>
// the socket's header needs those before it
#include <netgraph/bluetooth/include/ng_btsocket.h>
#define BTPROTO_HCI BLUETOOTH_PROTO_HCI
#define BTPROTO_L2CAP BLUETOOTH_PROTO_L2CAP
#define BTPROTO_RFCOMM BLUETOOTH_PROTO_RFCOMM
#define BTPROTO_SCO BLUETOOTH_PROTO_SCO
#define SOL_HCI SOL_HCI_RAW
#define HCI_FILTER SO_HCI_RAW_FILTER
#define HCI_DATA_DIR SO_HCI_RAW_DIRECTION
#endif

#endif
