# Made by ext/constants/generate.py of ext/constants/constants.toml.
import sys
from socket import AddressFamily, AddressInfo, MsgFlag, SocketKind
from typing import Final

__all__ = [
    "AF_APPLETALK",
    "AF_DECnet",
    "AF_INET",
    "AF_INET6",
    "AF_IPX",
    "AF_SNA",
    "AF_UNIX",
    "AF_UNSPEC",
    "SOCK_DGRAM",
    "SOCK_RAW",
    "SOCK_RDM",
    "SOCK_SEQPACKET",
    "SOCK_STREAM",
    "MSG_CTRUNC",
    "MSG_DONTROUTE",
    "MSG_OOB",
    "MSG_PEEK",
    "MSG_TRUNC",
    "MSG_WAITALL",
    "AI_ADDRCONFIG",
    "AI_CANONNAME",
    "AI_NUMERICHOST",
    "AI_NUMERICSERV",
    "AI_PASSIVE",
    "EAI_AGAIN",
    "EAI_BADFLAGS",
    "EAI_FAIL",
    "EAI_FAMILY",
    "EAI_MEMORY",
    "EAI_NODATA",
    "EAI_NONAME",
    "EAI_SERVICE",
    "EAI_SOCKTYPE",
    "NI_DGRAM",
    "NI_MAXHOST",
    "NI_MAXSERV",
    "NI_NAMEREQD",
    "NI_NOFQDN",
    "NI_NUMERICHOST",
    "NI_NUMERICSERV",
    "SHUT_RD",
    "SHUT_RDWR",
    "SHUT_WR",
    "SOL_IP",
    "SOL_SOCKET",
    "SOL_TCP",
    "SOL_UDP",
    "SOMAXCONN",
    "SO_ACCEPTCONN",
    "SO_BROADCAST",
    "SO_DEBUG",
    "SO_DONTROUTE",
    "SO_ERROR",
    "SO_KEEPALIVE",
    "SO_LINGER",
    "SO_OOBINLINE",
    "SO_RCVBUF",
    "SO_RCVLOWAT",
    "SO_RCVTIMEO",
    "SO_REUSEADDR",
    "SO_SNDBUF",
    "SO_SNDLOWAT",
    "SO_SNDTIMEO",
    "SO_TYPE",
    "IPPROTO_AH",
    "IPPROTO_DSTOPTS",
    "IPPROTO_EGP",
    "IPPROTO_ESP",
    "IPPROTO_FRAGMENT",
    "IPPROTO_HOPOPTS",
    "IPPROTO_ICMP",
    "IPPROTO_ICMPV6",
    "IPPROTO_IDP",
    "IPPROTO_IGMP",
    "IPPROTO_IP",
    "IPPROTO_IPV6",
    "IPPROTO_NONE",
    "IPPROTO_PIM",
    "IPPROTO_PUP",
    "IPPROTO_RAW",
    "IPPROTO_ROUTING",
    "IPPROTO_SCTP",
    "IPPROTO_TCP",
    "IPPROTO_UDP",
    "IPPORT_RESERVED",
    "IPPORT_USERRESERVED",
    "INADDR_ALLHOSTS_GROUP",
    "INADDR_ANY",
    "INADDR_BROADCAST",
    "INADDR_LOOPBACK",
    "INADDR_MAX_LOCAL_GROUP",
    "INADDR_NONE",
    "INADDR_UNSPEC_GROUP",
    "IP_ADD_MEMBERSHIP",
    "IP_DROP_MEMBERSHIP",
    "IP_HDRINCL",
    "IP_MULTICAST_IF",
    "IP_MULTICAST_LOOP",
    "IP_MULTICAST_TTL",
    "IP_OPTIONS",
    "IP_RECVTTL",
    "IP_TOS",
    "IP_TTL",
    "IPV6_CHECKSUM",
    "IPV6_DONTFRAG",
    "IPV6_HOPLIMIT",
    "IPV6_HOPOPTS",
    "IPV6_JOIN_GROUP",
    "IPV6_LEAVE_GROUP",
    "IPV6_MULTICAST_HOPS",
    "IPV6_MULTICAST_IF",
    "IPV6_MULTICAST_LOOP",
    "IPV6_PKTINFO",
    "IPV6_RECVRTHDR",
    "IPV6_RECVTCLASS",
    "IPV6_RTHDR",
    "IPV6_TCLASS",
    "IPV6_UNICAST_HOPS",
    "IPV6_V6ONLY",
    "TCP_MAXSEG",
    "TCP_NODELAY",
]
AF_APPLETALK: Final[AddressFamily]
AF_DECnet: Final[int]
AF_INET: Final[AddressFamily]
AF_INET6: Final[AddressFamily]
AF_IPX: Final[AddressFamily]
AF_SNA: Final[AddressFamily]
AF_UNIX: Final[AddressFamily]
AF_UNSPEC: Final[AddressFamily]
SOCK_DGRAM: Final[SocketKind]
SOCK_RAW: Final[SocketKind]
SOCK_RDM: Final[SocketKind]
SOCK_SEQPACKET: Final[SocketKind]
SOCK_STREAM: Final[SocketKind]
MSG_CTRUNC: Final[MsgFlag]
MSG_DONTROUTE: Final[MsgFlag]
MSG_OOB: Final[MsgFlag]
MSG_PEEK: Final[MsgFlag]
MSG_TRUNC: Final[MsgFlag]
MSG_WAITALL: Final[MsgFlag]
AI_ADDRCONFIG: Final[AddressInfo]
AI_CANONNAME: Final[AddressInfo]
AI_NUMERICHOST: Final[AddressInfo]
AI_NUMERICSERV: Final[AddressInfo]
AI_PASSIVE: Final[AddressInfo]
EAI_AGAIN: Final[int]
EAI_BADFLAGS: Final[int]
EAI_FAIL: Final[int]
EAI_FAMILY: Final[int]
EAI_MEMORY: Final[int]
EAI_NODATA: Final[int]
EAI_NONAME: Final[int]
EAI_SERVICE: Final[int]
EAI_SOCKTYPE: Final[int]
NI_DGRAM: Final[int]
NI_MAXHOST: Final[int]
NI_MAXSERV: Final[int]
NI_NAMEREQD: Final[int]
NI_NOFQDN: Final[int]
NI_NUMERICHOST: Final[int]
NI_NUMERICSERV: Final[int]
SHUT_RD: Final[int]
SHUT_RDWR: Final[int]
SHUT_WR: Final[int]
SOL_IP: Final[int]
SOL_SOCKET: Final[int]
SOL_TCP: Final[int]
SOL_UDP: Final[int]
SOMAXCONN: Final[int]
SO_ACCEPTCONN: Final[int]
SO_BROADCAST: Final[int]
SO_DEBUG: Final[int]
SO_DONTROUTE: Final[int]
SO_ERROR: Final[int]
SO_KEEPALIVE: Final[int]
SO_LINGER: Final[int]
SO_OOBINLINE: Final[int]
SO_RCVBUF: Final[int]
SO_RCVLOWAT: Final[int]
SO_RCVTIMEO: Final[int]
SO_REUSEADDR: Final[int]
SO_SNDBUF: Final[int]
SO_SNDLOWAT: Final[int]
SO_SNDTIMEO: Final[int]
SO_TYPE: Final[int]
IPPROTO_AH: Final[int]
IPPROTO_DSTOPTS: Final[int]
IPPROTO_EGP: Final[int]
IPPROTO_ESP: Final[int]
IPPROTO_FRAGMENT: Final[int]
IPPROTO_HOPOPTS: Final[int]
IPPROTO_ICMP: Final[int]
IPPROTO_ICMPV6: Final[int]
IPPROTO_IDP: Final[int]
IPPROTO_IGMP: Final[int]
IPPROTO_IP: Final[int]
IPPROTO_IPV6: Final[int]
IPPROTO_NONE: Final[int]
IPPROTO_PIM: Final[int]
IPPROTO_PUP: Final[int]
IPPROTO_RAW: Final[int]
IPPROTO_ROUTING: Final[int]
IPPROTO_SCTP: Final[int]
IPPROTO_TCP: Final[int]
IPPROTO_UDP: Final[int]
IPPORT_RESERVED: Final[int]
IPPORT_USERRESERVED: Final[int]
INADDR_ALLHOSTS_GROUP: Final[int]
INADDR_ANY: Final[int]
INADDR_BROADCAST: Final[int]
INADDR_LOOPBACK: Final[int]
INADDR_MAX_LOCAL_GROUP: Final[int]
INADDR_NONE: Final[int]
INADDR_UNSPEC_GROUP: Final[int]
IP_ADD_MEMBERSHIP: Final[int]
IP_DROP_MEMBERSHIP: Final[int]
IP_HDRINCL: Final[int]
IP_MULTICAST_IF: Final[int]
IP_MULTICAST_LOOP: Final[int]
IP_MULTICAST_TTL: Final[int]
IP_OPTIONS: Final[int]
IP_RECVTTL: Final[int]
IP_TOS: Final[int]
IP_TTL: Final[int]
IPV6_CHECKSUM: Final[int]
IPV6_DONTFRAG: Final[int]
IPV6_HOPLIMIT: Final[int]
IPV6_HOPOPTS: Final[int]
IPV6_JOIN_GROUP: Final[int]
IPV6_LEAVE_GROUP: Final[int]
IPV6_MULTICAST_HOPS: Final[int]
IPV6_MULTICAST_IF: Final[int]
IPV6_MULTICAST_LOOP: Final[int]
IPV6_PKTINFO: Final[int]
IPV6_RECVRTHDR: Final[int]
IPV6_RECVTCLASS: Final[int]
IPV6_RTHDR: Final[int]
IPV6_TCLASS: Final[int]
IPV6_UNICAST_HOPS: Final[int]
IPV6_V6ONLY: Final[int]
TCP_MAXSEG: Final[int]
TCP_NODELAY: Final[int]

if sys.platform == "linux":
    __all__ += [
        "AF_ALG",
        "AF_ASH",
        "AF_ATMPVC",
        "AF_ATMSVC",
        "AF_AX25",
        "AF_BRIDGE",
        "AF_ECONET",
        "AF_LLC",
        "AF_NETBEUI",
        "AF_NETROM",
        "AF_PACKET",
        "AF_PPPOX",
        "AF_QIPCRTR",
        "AF_RDS",
        "AF_ROSE",
        "AF_SECURITY",
        "AF_TIPC",
        "AF_VSOCK",
        "AF_WANPIPE",
        "AF_X25",
        "PF_PACKET",
        "PF_RDS",
        "MSG_CONFIRM",
        "MSG_FASTOPEN",
        "MSG_MORE",
        "NI_IDN",
        "SOL_ALG",
        "SOL_BLUETOOTH",
        "SOL_CAN_BASE",
        "SOL_RDS",
        "SOL_TIPC",
        "SO_BINDTOIFINDEX",
        "SO_INCOMING_CPU",
        "SO_MARK",
        "SO_PASSCRED",
        "SO_PASSSEC",
        "SO_PEERSEC",
        "SO_PRIORITY",
        "SCM_CREDENTIALS",
        "IPPROTO_MPTCP",
        "IP_BIND_ADDRESS_NO_PORT",
        "IP_FREEBIND",
        "IP_TRANSPARENT",
        "TCP_CC_INFO",
        "TCP_CORK",
        "TCP_DEFER_ACCEPT",
        "TCP_FASTOPEN_CONNECT",
        "TCP_FASTOPEN_KEY",
        "TCP_FASTOPEN_NO_COOKIE",
        "TCP_INQ",
        "TCP_LINGER2",
        "TCP_MD5SIG_EXT",
        "TCP_QUEUE_SEQ",
        "TCP_REPAIR",
        "TCP_REPAIR_OPTIONS",
        "TCP_REPAIR_QUEUE",
        "TCP_REPAIR_WINDOW",
        "TCP_SAVED_SYN",
        "TCP_SAVE_SYN",
        "TCP_SYNCNT",
        "TCP_THIN_DUPACK",
        "TCP_THIN_LINEAR_TIMEOUTS",
        "TCP_TIMESTAMP",
        "TCP_TX_DELAY",
        "TCP_ULP",
        "TCP_USER_TIMEOUT",
        "TCP_WINDOW_CLAMP",
        "TCP_ZEROCOPY_RECEIVE",
        "UDPLITE_RECV_CSCOV",
        "UDPLITE_SEND_CSCOV",
        "NETLINK_CRYPTO",
        "TIPC_ADDR_ID",
        "TIPC_ADDR_NAME",
        "TIPC_ADDR_NAMESEQ",
        "TIPC_CFG_SRV",
        "TIPC_CLUSTER_SCOPE",
        "TIPC_CONN_TIMEOUT",
        "TIPC_CRITICAL_IMPORTANCE",
        "TIPC_DEST_DROPPABLE",
        "TIPC_HIGH_IMPORTANCE",
        "TIPC_IMPORTANCE",
        "TIPC_LOW_IMPORTANCE",
        "TIPC_MEDIUM_IMPORTANCE",
        "TIPC_NODE_SCOPE",
        "TIPC_PUBLISHED",
        "TIPC_SRC_DROPPABLE",
        "TIPC_SUBSCR_TIMEOUT",
        "TIPC_SUB_CANCEL",
        "TIPC_SUB_PORTS",
        "TIPC_SUB_SERVICE",
        "TIPC_TOP_SRV",
        "TIPC_WAIT_FOREVER",
        "TIPC_WITHDRAWN",
        "TIPC_ZONE_SCOPE",
        "CAN_BCM",
        "CAN_ISOTP",
        "CAN_J1939",
        "CAN_RAW_ERR_FILTER",
        "CAN_RAW_FD_FRAMES",
        "CAN_RAW_JOIN_FILTERS",
        "CAN_BCM_CAN_FD_FRAME",
        "CAN_BCM_RX_ANNOUNCE_RESUME",
        "CAN_BCM_RX_CHANGED",
        "CAN_BCM_RX_CHECK_DLC",
        "CAN_BCM_RX_DELETE",
        "CAN_BCM_RX_FILTER_ID",
        "CAN_BCM_RX_NO_AUTOTIMER",
        "CAN_BCM_RX_READ",
        "CAN_BCM_RX_RTR_FRAME",
        "CAN_BCM_RX_SETUP",
        "CAN_BCM_RX_STATUS",
        "CAN_BCM_RX_TIMEOUT",
        "CAN_BCM_SETTIMER",
        "CAN_BCM_STARTTIMER",
        "CAN_BCM_TX_ANNOUNCE",
        "CAN_BCM_TX_COUNTEVT",
        "CAN_BCM_TX_CP_CAN_ID",
        "CAN_BCM_TX_DELETE",
        "CAN_BCM_TX_EXPIRED",
        "CAN_BCM_TX_READ",
        "CAN_BCM_TX_RESET_MULTI_IDX",
        "CAN_BCM_TX_SEND",
        "CAN_BCM_TX_SETUP",
        "CAN_BCM_TX_STATUS",
        "J1939_EE_INFO_NONE",
        "J1939_EE_INFO_TX_ABORT",
        "J1939_FILTER_MAX",
        "J1939_IDLE_ADDR",
        "J1939_MAX_UNICAST_ADDR",
        "J1939_NLA_BYTES_ACKED",
        "J1939_NLA_PAD",
        "J1939_NO_ADDR",
        "J1939_NO_NAME",
        "J1939_NO_PGN",
        "J1939_PGN_ADDRESS_CLAIMED",
        "J1939_PGN_ADDRESS_COMMANDED",
        "J1939_PGN_MAX",
        "J1939_PGN_PDU1_MAX",
        "J1939_PGN_REQUEST",
        "SCM_J1939_DEST_ADDR",
        "SCM_J1939_DEST_NAME",
        "SCM_J1939_ERRQUEUE",
        "SCM_J1939_PRIO",
        "SO_J1939_ERRQUEUE",
        "SO_J1939_FILTER",
        "SO_J1939_PROMISC",
        "SO_J1939_SEND_PRIO",
        "BDADDR_BREDR",
        "BDADDR_LE_PUBLIC",
        "BDADDR_LE_RANDOM",
        "BT_CHANNEL_POLICY",
        "BT_CHANNEL_POLICY_BREDR_ONLY",
        "BT_CHANNEL_POLICY_BREDR_PREFERRED",
        "BT_CODEC",
        "BT_DEFER_SETUP",
        "BT_FLUSHABLE",
        "BT_FLUSHABLE_OFF",
        "BT_FLUSHABLE_ON",
        "BT_ISO_QOS",
        "BT_MODE",
        "BT_MODE_BASIC",
        "BT_MODE_ERTM",
        "BT_MODE_EXT_FLOWCTL",
        "BT_MODE_LE_FLOWCTL",
        "BT_MODE_STREAMING",
        "BT_PHY",
        "BT_PHY_BR_1M_1SLOT",
        "BT_PHY_BR_1M_3SLOT",
        "BT_PHY_BR_1M_5SLOT",
        "BT_PHY_EDR_2M_1SLOT",
        "BT_PHY_EDR_2M_3SLOT",
        "BT_PHY_EDR_2M_5SLOT",
        "BT_PHY_EDR_3M_1SLOT",
        "BT_PHY_EDR_3M_3SLOT",
        "BT_PHY_EDR_3M_5SLOT",
        "BT_PHY_LE_1M_RX",
        "BT_PHY_LE_1M_TX",
        "BT_PHY_LE_2M_RX",
        "BT_PHY_LE_2M_TX",
        "BT_PHY_LE_CODED_RX",
        "BT_PHY_LE_CODED_TX",
        "BT_PKT_STATUS",
        "BT_POWER",
        "BT_POWER_FORCE_ACTIVE_OFF",
        "BT_POWER_FORCE_ACTIVE_ON",
        "BT_RCVMTU",
        "BT_SECURITY",
        "BT_SECURITY_FIPS",
        "BT_SECURITY_HIGH",
        "BT_SECURITY_LOW",
        "BT_SECURITY_MEDIUM",
        "BT_SECURITY_SDP",
        "BT_SNDMTU",
        "BT_VOICE",
        "BT_VOICE_CVSD_16BIT",
        "BT_VOICE_TRANSPARENT",
        "BT_VOICE_TRANSPARENT_16BIT",
        "HCI_CHANNEL_CONTROL",
        "HCI_CHANNEL_LOGGING",
        "HCI_CHANNEL_MONITOR",
        "HCI_CHANNEL_RAW",
        "HCI_CHANNEL_USER",
        "HCI_DEV_NONE",
        "HCI_TIME_STAMP",
        "L2CAP_LM",
        "L2CAP_LM_MASTER",
        "L2CAP_LM_RELIABLE",
        "L2CAP_LM_TRUSTED",
        "ALG_OP_DECRYPT",
        "ALG_OP_ENCRYPT",
        "ALG_OP_SIGN",
        "ALG_OP_VERIFY",
        "ALG_SET_AEAD_ASSOCLEN",
        "ALG_SET_AEAD_AUTHSIZE",
        "ALG_SET_IV",
        "ALG_SET_KEY",
        "ALG_SET_OP",
        "ALG_SET_PUBKEY",
        "IOCTL_VM_SOCKETS_GET_LOCAL_CID",
        "SO_VM_SOCKETS_BUFFER_MAX_SIZE",
        "SO_VM_SOCKETS_BUFFER_MIN_SIZE",
        "SO_VM_SOCKETS_BUFFER_SIZE",
        "VMADDR_CID_ANY",
        "VMADDR_CID_HOST",
        "VMADDR_CID_LOCAL",
        "VMADDR_PORT_ANY",
        "VM_SOCKETS_INVALID_VERSION",
        "ETH_P_ALL",
        "PACKET_BROADCAST",
        "PACKET_FASTROUTE",
        "PACKET_HOST",
        "PACKET_LOOPBACK",
        "PACKET_MULTICAST",
        "PACKET_OTHERHOST",
        "PACKET_OUTGOING",
    ]
    AF_ALG: Final[AddressFamily]
    AF_ASH: Final[AddressFamily]
    AF_ATMPVC: Final[AddressFamily]
    AF_ATMSVC: Final[AddressFamily]
    AF_AX25: Final[AddressFamily]
    AF_BRIDGE: Final[AddressFamily]
    AF_ECONET: Final[AddressFamily]
    AF_LLC: Final[AddressFamily]
    AF_NETBEUI: Final[AddressFamily]
    AF_NETROM: Final[AddressFamily]
    AF_PACKET: Final[AddressFamily]
    AF_PPPOX: Final[AddressFamily]
    AF_QIPCRTR: Final[AddressFamily]
    AF_RDS: Final[AddressFamily]
    AF_ROSE: Final[AddressFamily]
    AF_SECURITY: Final[AddressFamily]
    AF_TIPC: Final[AddressFamily]
    AF_VSOCK: Final[AddressFamily]
    AF_WANPIPE: Final[AddressFamily]
    AF_X25: Final[AddressFamily]
    PF_PACKET: Final[int]
    PF_RDS: Final[int]
    MSG_CONFIRM: Final[MsgFlag]
    MSG_FASTOPEN: Final[MsgFlag]
    MSG_MORE: Final[MsgFlag]
    NI_IDN: Final[int]
    SOL_ALG: Final[int]
    SOL_BLUETOOTH: Final[int]
    SOL_CAN_BASE: Final[int]
    SOL_RDS: Final[int]
    SOL_TIPC: Final[int]
    SO_BINDTOIFINDEX: Final[int]
    SO_INCOMING_CPU: Final[int]
    SO_MARK: Final[int]
    SO_PASSCRED: Final[int]
    SO_PASSSEC: Final[int]
    SO_PEERSEC: Final[int]
    SO_PRIORITY: Final[int]
    SCM_CREDENTIALS: Final[int]
    IPPROTO_MPTCP: Final[int]
    IP_BIND_ADDRESS_NO_PORT: Final[int]
    IP_FREEBIND: Final[int]
    IP_TRANSPARENT: Final[int]
    TCP_CC_INFO: Final[int]
    TCP_CORK: Final[int]
    TCP_DEFER_ACCEPT: Final[int]
    TCP_FASTOPEN_CONNECT: Final[int]
    TCP_FASTOPEN_KEY: Final[int]
    TCP_FASTOPEN_NO_COOKIE: Final[int]
    TCP_INQ: Final[int]
    TCP_LINGER2: Final[int]
    TCP_MD5SIG_EXT: Final[int]
    TCP_QUEUE_SEQ: Final[int]
    TCP_REPAIR: Final[int]
    TCP_REPAIR_OPTIONS: Final[int]
    TCP_REPAIR_QUEUE: Final[int]
    TCP_REPAIR_WINDOW: Final[int]
    TCP_SAVED_SYN: Final[int]
    TCP_SAVE_SYN: Final[int]
    TCP_SYNCNT: Final[int]
    TCP_THIN_DUPACK: Final[int]
    TCP_THIN_LINEAR_TIMEOUTS: Final[int]
    TCP_TIMESTAMP: Final[int]
    TCP_TX_DELAY: Final[int]
    TCP_ULP: Final[int]
    TCP_USER_TIMEOUT: Final[int]
    TCP_WINDOW_CLAMP: Final[int]
    TCP_ZEROCOPY_RECEIVE: Final[int]
    UDPLITE_RECV_CSCOV: Final[int]
    UDPLITE_SEND_CSCOV: Final[int]
    NETLINK_CRYPTO: Final[int]
    TIPC_ADDR_ID: Final[int]
    TIPC_ADDR_NAME: Final[int]
    TIPC_ADDR_NAMESEQ: Final[int]
    TIPC_CFG_SRV: Final[int]
    TIPC_CLUSTER_SCOPE: Final[int]
    TIPC_CONN_TIMEOUT: Final[int]
    TIPC_CRITICAL_IMPORTANCE: Final[int]
    TIPC_DEST_DROPPABLE: Final[int]
    TIPC_HIGH_IMPORTANCE: Final[int]
    TIPC_IMPORTANCE: Final[int]
    TIPC_LOW_IMPORTANCE: Final[int]
    TIPC_MEDIUM_IMPORTANCE: Final[int]
    TIPC_NODE_SCOPE: Final[int]
    TIPC_PUBLISHED: Final[int]
    TIPC_SRC_DROPPABLE: Final[int]
    TIPC_SUBSCR_TIMEOUT: Final[int]
    TIPC_SUB_CANCEL: Final[int]
    TIPC_SUB_PORTS: Final[int]
    TIPC_SUB_SERVICE: Final[int]
    TIPC_TOP_SRV: Final[int]
    TIPC_WAIT_FOREVER: Final[int]
    TIPC_WITHDRAWN: Final[int]
    TIPC_ZONE_SCOPE: Final[int]
    CAN_BCM: Final[int]
    CAN_ISOTP: Final[int]
    CAN_J1939: Final[int]
    CAN_RAW_ERR_FILTER: Final[int]
    CAN_RAW_FD_FRAMES: Final[int]
    CAN_RAW_JOIN_FILTERS: Final[int]
    CAN_BCM_CAN_FD_FRAME: Final[int]
    CAN_BCM_RX_ANNOUNCE_RESUME: Final[int]
    CAN_BCM_RX_CHANGED: Final[int]
    CAN_BCM_RX_CHECK_DLC: Final[int]
    CAN_BCM_RX_DELETE: Final[int]
    CAN_BCM_RX_FILTER_ID: Final[int]
    CAN_BCM_RX_NO_AUTOTIMER: Final[int]
    CAN_BCM_RX_READ: Final[int]
    CAN_BCM_RX_RTR_FRAME: Final[int]
    CAN_BCM_RX_SETUP: Final[int]
    CAN_BCM_RX_STATUS: Final[int]
    CAN_BCM_RX_TIMEOUT: Final[int]
    CAN_BCM_SETTIMER: Final[int]
    CAN_BCM_STARTTIMER: Final[int]
    CAN_BCM_TX_ANNOUNCE: Final[int]
    CAN_BCM_TX_COUNTEVT: Final[int]
    CAN_BCM_TX_CP_CAN_ID: Final[int]
    CAN_BCM_TX_DELETE: Final[int]
    CAN_BCM_TX_EXPIRED: Final[int]
    CAN_BCM_TX_READ: Final[int]
    CAN_BCM_TX_RESET_MULTI_IDX: Final[int]
    CAN_BCM_TX_SEND: Final[int]
    CAN_BCM_TX_SETUP: Final[int]
    CAN_BCM_TX_STATUS: Final[int]
    J1939_EE_INFO_NONE: Final[int]
    J1939_EE_INFO_TX_ABORT: Final[int]
    J1939_FILTER_MAX: Final[int]
    J1939_IDLE_ADDR: Final[int]
    J1939_MAX_UNICAST_ADDR: Final[int]
    J1939_NLA_BYTES_ACKED: Final[int]
    J1939_NLA_PAD: Final[int]
    J1939_NO_ADDR: Final[int]
    J1939_NO_NAME: Final[int]
    J1939_NO_PGN: Final[int]
    J1939_PGN_ADDRESS_CLAIMED: Final[int]
    J1939_PGN_ADDRESS_COMMANDED: Final[int]
    J1939_PGN_MAX: Final[int]
    J1939_PGN_PDU1_MAX: Final[int]
    J1939_PGN_REQUEST: Final[int]
    SCM_J1939_DEST_ADDR: Final[int]
    SCM_J1939_DEST_NAME: Final[int]
    SCM_J1939_ERRQUEUE: Final[int]
    SCM_J1939_PRIO: Final[int]
    SO_J1939_ERRQUEUE: Final[int]
    SO_J1939_FILTER: Final[int]
    SO_J1939_PROMISC: Final[int]
    SO_J1939_SEND_PRIO: Final[int]
    BDADDR_BREDR: Final[int]
    BDADDR_LE_PUBLIC: Final[int]
    BDADDR_LE_RANDOM: Final[int]
    BT_CHANNEL_POLICY: Final[int]
    BT_CHANNEL_POLICY_BREDR_ONLY: Final[int]
    BT_CHANNEL_POLICY_BREDR_PREFERRED: Final[int]
    BT_CODEC: Final[int]
    BT_DEFER_SETUP: Final[int]
    BT_FLUSHABLE: Final[int]
    BT_FLUSHABLE_OFF: Final[int]
    BT_FLUSHABLE_ON: Final[int]
    BT_ISO_QOS: Final[int]
    BT_MODE: Final[int]
    BT_MODE_BASIC: Final[int]
    BT_MODE_ERTM: Final[int]
    BT_MODE_EXT_FLOWCTL: Final[int]
    BT_MODE_LE_FLOWCTL: Final[int]
    BT_MODE_STREAMING: Final[int]
    BT_PHY: Final[int]
    BT_PHY_BR_1M_1SLOT: Final[int]
    BT_PHY_BR_1M_3SLOT: Final[int]
    BT_PHY_BR_1M_5SLOT: Final[int]
    BT_PHY_EDR_2M_1SLOT: Final[int]
    BT_PHY_EDR_2M_3SLOT: Final[int]
    BT_PHY_EDR_2M_5SLOT: Final[int]
    BT_PHY_EDR_3M_1SLOT: Final[int]
    BT_PHY_EDR_3M_3SLOT: Final[int]
    BT_PHY_EDR_3M_5SLOT: Final[int]
    BT_PHY_LE_1M_RX: Final[int]
    BT_PHY_LE_1M_TX: Final[int]
    BT_PHY_LE_2M_RX: Final[int]
    BT_PHY_LE_2M_TX: Final[int]
    BT_PHY_LE_CODED_RX: Final[int]
    BT_PHY_LE_CODED_TX: Final[int]
    BT_PKT_STATUS: Final[int]
    BT_POWER: Final[int]
    BT_POWER_FORCE_ACTIVE_OFF: Final[int]
    BT_POWER_FORCE_ACTIVE_ON: Final[int]
    BT_RCVMTU: Final[int]
    BT_SECURITY: Final[int]
    BT_SECURITY_FIPS: Final[int]
    BT_SECURITY_HIGH: Final[int]
    BT_SECURITY_LOW: Final[int]
    BT_SECURITY_MEDIUM: Final[int]
    BT_SECURITY_SDP: Final[int]
    BT_SNDMTU: Final[int]
    BT_VOICE: Final[int]
    BT_VOICE_CVSD_16BIT: Final[int]
    BT_VOICE_TRANSPARENT: Final[int]
    BT_VOICE_TRANSPARENT_16BIT: Final[int]
    HCI_CHANNEL_CONTROL: Final[int]
    HCI_CHANNEL_LOGGING: Final[int]
    HCI_CHANNEL_MONITOR: Final[int]
    HCI_CHANNEL_RAW: Final[int]
    HCI_CHANNEL_USER: Final[int]
    HCI_DEV_NONE: Final[int]
    HCI_TIME_STAMP: Final[int]
    L2CAP_LM: Final[int]
    L2CAP_LM_MASTER: Final[int]
    L2CAP_LM_RELIABLE: Final[int]
    L2CAP_LM_TRUSTED: Final[int]
    ALG_OP_DECRYPT: Final[int]
    ALG_OP_ENCRYPT: Final[int]
    ALG_OP_SIGN: Final[int]
    ALG_OP_VERIFY: Final[int]
    ALG_SET_AEAD_ASSOCLEN: Final[int]
    ALG_SET_AEAD_AUTHSIZE: Final[int]
    ALG_SET_IV: Final[int]
    ALG_SET_KEY: Final[int]
    ALG_SET_OP: Final[int]
    ALG_SET_PUBKEY: Final[int]
    IOCTL_VM_SOCKETS_GET_LOCAL_CID: Final[int]
    SO_VM_SOCKETS_BUFFER_MAX_SIZE: Final[int]
    SO_VM_SOCKETS_BUFFER_MIN_SIZE: Final[int]
    SO_VM_SOCKETS_BUFFER_SIZE: Final[int]
    VMADDR_CID_ANY: Final[int]
    VMADDR_CID_HOST: Final[int]
    VMADDR_CID_LOCAL: Final[int]
    VMADDR_PORT_ANY: Final[int]
    VM_SOCKETS_INVALID_VERSION: Final[int]
    ETH_P_ALL: Final[int]
    PACKET_BROADCAST: Final[int]
    PACKET_FASTROUTE: Final[int]
    PACKET_HOST: Final[int]
    PACKET_LOOPBACK: Final[int]
    PACKET_MULTICAST: Final[int]
    PACKET_OTHERHOST: Final[int]
    PACKET_OUTGOING: Final[int]

if sys.platform != "darwin" and not sys.platform.startswith("openbsd"):
    __all__ += [
        "AF_BLUETOOTH",
        "SOL_RFCOMM",
        "TCP_KEEPIDLE",
        "BDADDR_ANY",
        "BDADDR_LOCAL",
        "BTPROTO_RFCOMM",
    ]
    AF_BLUETOOTH: Final[AddressFamily]
    SOL_RFCOMM: Final[int]
    TCP_KEEPIDLE: Final[int]
    BDADDR_ANY: Final[str]
    BDADDR_LOCAL: Final[str]
    BTPROTO_RFCOMM: Final[int]

if sys.platform == "linux" or sys.platform.startswith("netbsd"):
    __all__ += [
        "AF_CAN",
        "PF_CAN",
        "SOL_CAN_RAW",
        "CAN_EFF_FLAG",
        "CAN_EFF_MASK",
        "CAN_ERR_FLAG",
        "CAN_ERR_MASK",
        "CAN_RAW",
        "CAN_RAW_FILTER",
        "CAN_RAW_LOOPBACK",
        "CAN_RAW_RECV_OWN_MSGS",
        "CAN_RTR_FLAG",
        "CAN_SFF_MASK",
        "L2CAP_LM_AUTH",
        "L2CAP_LM_ENCRYPT",
        "L2CAP_LM_SECURE",
    ]
    AF_CAN: Final[AddressFamily]
    PF_CAN: Final[int]
    SOL_CAN_RAW: Final[int]
    CAN_EFF_FLAG: Final[int]
    CAN_EFF_MASK: Final[int]
    CAN_ERR_FLAG: Final[int]
    CAN_ERR_MASK: Final[int]
    CAN_RAW: Final[int]
    CAN_RAW_FILTER: Final[int]
    CAN_RAW_LOOPBACK: Final[int]
    CAN_RAW_RECV_OWN_MSGS: Final[int]
    CAN_RTR_FLAG: Final[int]
    CAN_SFF_MASK: Final[int]
    L2CAP_LM_AUTH: Final[int]
    L2CAP_LM_ENCRYPT: Final[int]
    L2CAP_LM_SECURE: Final[int]

if sys.platform.startswith("freebsd"):
    __all__ += [
        "AF_DIVERT",
        "PF_DIVERT",
        "LOCAL_CREDS_PERSISTENT",
        "SO_REUSEPORT_LB",
        "SO_SETFIB",
        "SO_USER_COOKIE",
        "SCM_CREDS2",
        "SO_L2CAP_ENCRYPTED",
        "SO_SCO_CONNINFO",
    ]
    AF_DIVERT: Final[AddressFamily]
    PF_DIVERT: Final[int]
    LOCAL_CREDS_PERSISTENT: Final[int]
    SO_REUSEPORT_LB: Final[int]
    SO_SETFIB: Final[int]
    SO_USER_COOKIE: Final[int]
    SCM_CREDS2: Final[int]
    SO_L2CAP_ENCRYPTED: Final[int]
    SO_SCO_CONNINFO: Final[int]

if sys.platform == "win32":
    __all__ += [
        "AF_HYPERV",
        "SO_EXCLUSIVEADDRUSE",
        "IPPROTO_CBT",
        "IPPROTO_ICLFXBM",
        "IPPROTO_IGP",
        "IPPROTO_L2TP",
        "IPPROTO_PGM",
        "IPPROTO_RDP",
        "IPPROTO_ST",
        "SO_BTH_ENCRYPT",
        "SO_BTH_MTU",
        "SO_BTH_MTU_MAX",
        "SO_BTH_MTU_MIN",
        "HVSOCKET_ADDRESS_FLAG_PASSTHRU",
        "HVSOCKET_CONNECTED_SUSPEND",
        "HVSOCKET_CONNECT_TIMEOUT",
        "HVSOCKET_CONNECT_TIMEOUT_MAX",
        "HV_GUID_BROADCAST",
        "HV_GUID_CHILDREN",
        "HV_GUID_LOOPBACK",
        "HV_GUID_PARENT",
        "HV_GUID_WILDCARD",
        "HV_GUID_ZERO",
        "HV_PROTOCOL_RAW",
        "RCVALL_IPLEVEL",
        "RCVALL_MAX",
        "RCVALL_OFF",
        "RCVALL_ON",
        "RCVALL_SOCKETLEVELONLY",
        "SIO_KEEPALIVE_VALS",
        "SIO_LOOPBACK_FAST_PATH",
        "SIO_RCVALL",
    ]
    AF_HYPERV: Final[AddressFamily]
    SO_EXCLUSIVEADDRUSE: Final[int]
    IPPROTO_CBT: Final[int]
    IPPROTO_ICLFXBM: Final[int]
    IPPROTO_IGP: Final[int]
    IPPROTO_L2TP: Final[int]
    IPPROTO_PGM: Final[int]
    IPPROTO_RDP: Final[int]
    IPPROTO_ST: Final[int]
    SO_BTH_ENCRYPT: Final[int]
    SO_BTH_MTU: Final[int]
    SO_BTH_MTU_MAX: Final[int]
    SO_BTH_MTU_MIN: Final[int]
    HVSOCKET_ADDRESS_FLAG_PASSTHRU: Final[int]
    HVSOCKET_CONNECTED_SUSPEND: Final[int]
    HVSOCKET_CONNECT_TIMEOUT: Final[int]
    HVSOCKET_CONNECT_TIMEOUT_MAX: Final[int]
    HV_GUID_BROADCAST: Final[str]
    HV_GUID_CHILDREN: Final[str]
    HV_GUID_LOOPBACK: Final[str]
    HV_GUID_PARENT: Final[str]
    HV_GUID_WILDCARD: Final[str]
    HV_GUID_ZERO: Final[str]
    HV_PROTOCOL_RAW: Final[int]
    RCVALL_IPLEVEL: Final[int]
    RCVALL_MAX: Final[int]
    RCVALL_OFF: Final[int]
    RCVALL_ON: Final[int]
    RCVALL_SOCKETLEVELONLY: Final[int]
    SIO_KEEPALIVE_VALS: Final[int]
    SIO_LOOPBACK_FAST_PATH: Final[int]
    SIO_RCVALL: Final[int]

if sys.platform == "linux" or sys.platform == "win32":
    __all__ += [
        "AF_IRDA",
        "MSG_ERRQUEUE",
        "SO_ORIGINAL_DST",
        "IP_RECVERR",
        "IPV6_RECVERR",
        "TCP_QUICKACK",
    ]
    AF_IRDA: Final[AddressFamily]
    MSG_ERRQUEUE: Final[MsgFlag]
    SO_ORIGINAL_DST: Final[int]
    IP_RECVERR: Final[int]
    IPV6_RECVERR: Final[int]
    TCP_QUICKACK: Final[int]

if sys.platform == "linux" or sys.platform.startswith("openbsd"):
    __all__ += [
        "AF_KEY",
        "SO_PEERCRED",
    ]
    AF_KEY: Final[AddressFamily]
    SO_PEERCRED: Final[int]

if sys.platform != "linux":
    __all__ += [
        "AF_LINK",
        "SO_USELOOPBACK",
        "IPPROTO_GGP",
        "IPPROTO_IPV4",
        "IPPROTO_MAX",
        "IP_RECVDSTADDR",
    ]
    AF_LINK: Final[AddressFamily]
    SO_USELOOPBACK: Final[int]
    IPPROTO_GGP: Final[int]
    IPPROTO_IPV4: Final[int]
    IPPROTO_MAX: Final[int]
    IP_RECVDSTADDR: Final[int]

if sys.platform == "linux" or sys.platform.startswith("freebsd"):
    __all__ += [
        "AF_NETLINK",
        "IP_RECVORIGDSTADDR",
        "TCP_CONGESTION",
        "NETLINK_DNRTMSG",
        "NETLINK_FIREWALL",
        "NETLINK_IP6_FW",
        "NETLINK_NFLOG",
        "NETLINK_ROUTE",
        "NETLINK_USERSOCK",
        "NETLINK_XFRM",
        "HCI_FILTER",
    ]
    AF_NETLINK: Final[AddressFamily]
    IP_RECVORIGDSTADDR: Final[int]
    TCP_CONGESTION: Final[int]
    NETLINK_DNRTMSG: Final[int]
    NETLINK_FIREWALL: Final[int]
    NETLINK_IP6_FW: Final[int]
    NETLINK_NFLOG: Final[int]
    NETLINK_ROUTE: Final[int]
    NETLINK_USERSOCK: Final[int]
    NETLINK_XFRM: Final[int]
    HCI_FILTER: Final[int]

if sys.platform != "win32":
    __all__ += [
        "AF_ROUTE",
        "MSG_DONTWAIT",
        "MSG_EOR",
        "MSG_NOSIGNAL",
        "EAI_ADDRFAMILY",
        "EAI_OVERFLOW",
        "EAI_SYSTEM",
        "SO_REUSEPORT",
        "SCM_RIGHTS",
        "IPPROTO_GRE",
        "IPPROTO_IPIP",
        "IPPROTO_RSVP",
        "IPPROTO_TP",
        "IP_DEFAULT_MULTICAST_LOOP",
        "IP_DEFAULT_MULTICAST_TTL",
        "IP_MAX_MEMBERSHIPS",
        "IP_RECVOPTS",
        "IP_RECVRETOPTS",
        "IP_RETOPTS",
        "IPV6_DSTOPTS",
        "IPV6_NEXTHOP",
        "IPV6_PATHMTU",
        "IPV6_RECVDSTOPTS",
        "IPV6_RECVHOPLIMIT",
        "IPV6_RECVHOPOPTS",
        "IPV6_RECVPATHMTU",
        "IPV6_RECVPKTINFO",
        "IPV6_RTHDRDSTOPTS",
        "IPV6_RTHDR_TYPE_0",
    ]
    AF_ROUTE: Final[AddressFamily]
    MSG_DONTWAIT: Final[MsgFlag]
    MSG_EOR: Final[MsgFlag]
    MSG_NOSIGNAL: Final[MsgFlag]
    EAI_ADDRFAMILY: Final[int]
    EAI_OVERFLOW: Final[int]
    EAI_SYSTEM: Final[int]
    SO_REUSEPORT: Final[int]
    SCM_RIGHTS: Final[int]
    IPPROTO_GRE: Final[int]
    IPPROTO_IPIP: Final[int]
    IPPROTO_RSVP: Final[int]
    IPPROTO_TP: Final[int]
    IP_DEFAULT_MULTICAST_LOOP: Final[int]
    IP_DEFAULT_MULTICAST_TTL: Final[int]
    IP_MAX_MEMBERSHIPS: Final[int]
    IP_RECVOPTS: Final[int]
    IP_RECVRETOPTS: Final[int]
    IP_RETOPTS: Final[int]
    IPV6_DSTOPTS: Final[int]
    IPV6_NEXTHOP: Final[int]
    IPV6_PATHMTU: Final[int]
    IPV6_RECVDSTOPTS: Final[int]
    IPV6_RECVHOPLIMIT: Final[int]
    IPV6_RECVHOPOPTS: Final[int]
    IPV6_RECVPATHMTU: Final[int]
    IPV6_RECVPKTINFO: Final[int]
    IPV6_RTHDRDSTOPTS: Final[int]
    IPV6_RTHDR_TYPE_0: Final[int]

if sys.platform == "darwin":
    __all__ += [
        "AF_SYSTEM",
        "PF_SYSTEM",
        "SYSPROTO_CONTROL",
        "TCP_CONNECTION_INFO",
        "TCP_KEEPALIVE",
    ]
    AF_SYSTEM: Final[AddressFamily]
    PF_SYSTEM: Final[int]
    SYSPROTO_CONTROL: Final[int]
    TCP_CONNECTION_INFO: Final[int]
    TCP_KEEPALIVE: Final[int]

if sys.platform != "darwin" and sys.platform != "win32":
    __all__ += [
        "SOCK_CLOEXEC",
        "SOCK_NONBLOCK",
        "MSG_CMSG_CLOEXEC",
        "TCP_INFO",
        "TCP_MD5SIG",
    ]
    SOCK_CLOEXEC: Final[SocketKind]
    SOCK_NONBLOCK: Final[SocketKind]
    MSG_CMSG_CLOEXEC: Final[MsgFlag]
    TCP_INFO: Final[int]
    TCP_MD5SIG: Final[int]

if (
    sys.platform.startswith("netbsd")
    or sys.platform.startswith("openbsd")
    or sys.platform == "win32"
):
    __all__ += [
        "MSG_BCAST",
        "MSG_MCAST",
    ]
    MSG_BCAST: Final[MsgFlag]
    MSG_MCAST: Final[MsgFlag]

if sys.platform == "darwin" or sys.platform.startswith("freebsd"):
    __all__ += [
        "MSG_EOF",
        "AI_DEFAULT",
        "AI_V4MAPPED_CFG",
        "LOCAL_PEERCRED",
        "IPPROTO_HELLO",
        "IPPROTO_XTP",
    ]
    MSG_EOF: Final[MsgFlag]
    AI_DEFAULT: Final[AddressInfo]
    AI_V4MAPPED_CFG: Final[AddressInfo]
    LOCAL_PEERCRED: Final[int]
    IPPROTO_HELLO: Final[int]
    IPPROTO_XTP: Final[int]

if sys.platform.startswith("freebsd") or sys.platform.startswith("netbsd"):
    __all__ += [
        "MSG_NOTIFICATION",
        "LOCAL_CREDS",
        "SO_L2CAP_FLUSH",
        "SO_L2CAP_IMTU",
        "SO_L2CAP_OMTU",
        "SO_RFCOMM_FC_INFO",
        "SO_RFCOMM_MTU",
        "SO_SCO_MTU",
    ]
    MSG_NOTIFICATION: Final[MsgFlag]
    LOCAL_CREDS: Final[int]
    SO_L2CAP_FLUSH: Final[int]
    SO_L2CAP_IMTU: Final[int]
    SO_L2CAP_OMTU: Final[int]
    SO_RFCOMM_FC_INFO: Final[int]
    SO_RFCOMM_MTU: Final[int]
    SO_SCO_MTU: Final[int]

if not sys.platform.startswith("netbsd") and not sys.platform.startswith("openbsd"):
    __all__ += [
        "AI_ALL",
        "AI_V4MAPPED",
        "IP_ADD_SOURCE_MEMBERSHIP",
        "IP_BLOCK_SOURCE",
        "IP_DROP_SOURCE_MEMBERSHIP",
        "IP_RECVTOS",
        "IP_UNBLOCK_SOURCE",
        "TCP_FASTOPEN",
    ]
    AI_ALL: Final[AddressInfo]
    AI_V4MAPPED: Final[AddressInfo]
    IP_ADD_SOURCE_MEMBERSHIP: Final[int]
    IP_BLOCK_SOURCE: Final[int]
    IP_DROP_SOURCE_MEMBERSHIP: Final[int]
    IP_RECVTOS: Final[int]
    IP_UNBLOCK_SOURCE: Final[int]
    TCP_FASTOPEN: Final[int]

if sys.platform != "linux" and sys.platform != "win32":
    __all__ += [
        "AI_MASK",
        "EAI_BADHINTS",
        "EAI_PROTOCOL",
        "IPPROTO_EON",
        "IPPROTO_IPCOMP",
        "IPV6_USE_MIN_MTU",
    ]
    AI_MASK: Final[AddressInfo]
    EAI_BADHINTS: Final[int]
    EAI_PROTOCOL: Final[int]
    IPPROTO_EON: Final[int]
    IPPROTO_IPCOMP: Final[int]
    IPV6_USE_MIN_MTU: Final[int]

if (
    sys.platform == "darwin"
    or sys.platform.startswith("freebsd")
    or sys.platform.startswith("netbsd")
):
    __all__ += [
        "EAI_MAX",
        "SCM_CREDS",
    ]
    EAI_MAX: Final[int]
    SCM_CREDS: Final[int]

if (
    sys.platform == "linux"
    or sys.platform.startswith("freebsd")
    or sys.platform.startswith("netbsd")
):
    __all__ += [
        "SOL_HCI",
        "SOL_L2CAP",
        "SOL_SCO",
        "BTPROTO_HCI",
        "BTPROTO_L2CAP",
        "BTPROTO_SCO",
        "HCI_DATA_DIR",
    ]
    SOL_HCI: Final[int]
    SOL_L2CAP: Final[int]
    SOL_SCO: Final[int]
    BTPROTO_HCI: Final[int]
    BTPROTO_L2CAP: Final[int]
    BTPROTO_SCO: Final[int]
    HCI_DATA_DIR: Final[int]

if sys.platform == "linux" or sys.platform == "darwin":
    __all__ += [
        "SO_BINDTODEVICE",
        "TCP_NOTSENT_LOWAT",
    ]
    SO_BINDTODEVICE: Final[int]
    TCP_NOTSENT_LOWAT: Final[int]

if (
    sys.platform == "linux"
    or sys.platform.startswith("freebsd")
    or sys.platform.startswith("openbsd")
):
    __all__ += [
        "SO_DOMAIN",
        "SO_PROTOCOL",
        "IPPROTO_UDPLITE",
    ]
    SO_DOMAIN: Final[int]
    SO_PROTOCOL: Final[int]
    IPPROTO_UDPLITE: Final[int]

if sys.platform.startswith("openbsd"):
    __all__ += [
        "SO_RTABLE",
    ]
    SO_RTABLE: Final[int]

if (
    sys.platform.startswith("freebsd")
    or sys.platform.startswith("netbsd")
    or sys.platform.startswith("openbsd")
):
    __all__ += [
        "IPPROTO_MOBILE",
    ]
    IPPROTO_MOBILE: Final[int]

if sys.platform == "darwin" or sys.platform.startswith("freebsd") or sys.platform == "win32":
    __all__ += [
        "IPPROTO_ND",
    ]
    IPPROTO_ND: Final[int]

if sys.platform.startswith("netbsd"):
    __all__ += [
        "IPPROTO_VRRP",
        "RFCOMM_LM_AUTH",
        "RFCOMM_LM_ENCRYPT",
        "RFCOMM_LM_SECURE",
        "SO_HCI_EVT_FILTER",
        "SO_HCI_PKT_FILTER",
        "SO_L2CAP_IQOS",
        "SO_L2CAP_LM",
        "SO_L2CAP_OQOS",
        "SO_RFCOMM_LM",
        "SO_SCO_HANDLE",
    ]
    IPPROTO_VRRP: Final[int]
    RFCOMM_LM_AUTH: Final[int]
    RFCOMM_LM_ENCRYPT: Final[int]
    RFCOMM_LM_SECURE: Final[int]
    SO_HCI_EVT_FILTER: Final[int]
    SO_HCI_PKT_FILTER: Final[int]
    SO_L2CAP_IQOS: Final[int]
    SO_L2CAP_LM: Final[int]
    SO_L2CAP_OQOS: Final[int]
    SO_RFCOMM_LM: Final[int]
    SO_SCO_HANDLE: Final[int]

if not sys.platform.startswith("freebsd") and not sys.platform.startswith("openbsd"):
    __all__ += [
        "IP_PKTINFO",
    ]
    IP_PKTINFO: Final[int]

if not sys.platform.startswith("openbsd"):
    __all__ += [
        "TCP_KEEPCNT",
        "TCP_KEEPINTVL",
    ]
    TCP_KEEPCNT: Final[int]
    TCP_KEEPINTVL: Final[int]

if sys.platform == "linux" or sys.platform == "darwin" or sys.platform.startswith("freebsd"):
    __all__ += [
        "ETHERTYPE_ARP",
        "ETHERTYPE_IP",
        "ETHERTYPE_IPV6",
        "ETHERTYPE_VLAN",
    ]
    ETHERTYPE_ARP: Final[int]
    ETHERTYPE_IP: Final[int]
    ETHERTYPE_IPV6: Final[int]
    ETHERTYPE_VLAN: Final[int]
