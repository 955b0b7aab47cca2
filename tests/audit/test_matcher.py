"""The compiled policy against the same rules, walked one after the other."""

from __future__ import annotations

import ipaddress
import socket as stock
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracesock import _native
from tracesock.audit.policy import Policy, Rule, Verdict, parse_policy
from tracesock.audit.records import FAMILIES, Endpoint, endpoint

MAPPED = ipaddress.ip_network("::ffff:0:0/96")
NAMES = ("a.example", "b.example", "x.a.example", "example", "c.test")


def walk(rules: list[Rule], default: str, peer: Endpoint, names: list[str]) -> Verdict:
    """What a policy means, written down without a thought for speed."""
    for rule in rules:
        if rule.direction != "egress":
            continue
        if rule.family and peer.family not in rule.family:
            continue
        if peer.address is None:
            if rule.host or rule.cidr or rule.port:
                continue
        else:
            address = ipaddress.ip_address(peer.address)
            by_name = any(
                name == host or (host.startswith("*.") and name.endswith(host[1:]))
                for host in rule.host
                for name in names
            )
            by_prefix = any(address in ipaddress.ip_network(prefix) for prefix in rule.cidr)
            if (rule.host or rule.cidr) and not by_name and not by_prefix:
                continue
            if rule.port and not any(a <= (peer.port or 0) <= b for a, b in rule.port):
                continue
        return Verdict(rule.action, rule.id)
    return Verdict(default, "default")


# Few distinct values, so that rules overlap and peers hit their edges.
v4 = st.integers(0, 255).map(lambda n: f"10.0.{n // 16}.{n % 16 * 16}")
v6 = st.integers(0, 255).map(lambda n: f"fd00::{n // 16:x}:{n % 16:x}")


def _prefix(text: str, bits: int) -> str:
    return str(ipaddress.ip_network(f"{text}/{bits}", strict=False))


prefixes = st.one_of(
    st.builds(_prefix, v4, st.sampled_from([0, 8, 16, 20, 24, 28, 31, 32])),
    st.builds(_prefix, v6, st.sampled_from([0, 8, 16, 64, 112, 127, 128])),
)
ports = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(lambda p: (min(p), max(p)))
near_ports = st.one_of(ports, st.sampled_from([(0, 0), (80, 80), (80, 90), (65535, 65535)]))
rules_of = st.lists(
    st.builds(
        lambda action, host, cidr, port, family, direction: Rule(
            "r", action, direction, tuple(host), tuple(cidr), tuple(port), tuple(family)
        ),
        st.sampled_from(["allow", "deny"]),
        st.lists(st.sampled_from([*NAMES, "*.example", "*.a.example"]), max_size=2),
        st.lists(prefixes, max_size=3),
        st.lists(near_ports, max_size=2),
        st.lists(st.sampled_from(["inet", "inet6", "unix"]), max_size=2, unique=True),
        st.sampled_from(["egress", "egress", "egress", "ingress"]),
    ),
    max_size=80,
).map(lambda rules: [_numbered(rule, index) for index, rule in enumerate(rules)])


def _numbered(rule: Rule, index: int) -> Rule:
    return Rule(
        f"r{index}", rule.action, rule.direction, rule.host, rule.cidr, rule.port, rule.family
    )


peers = st.one_of(
    st.builds(lambda a, p: Endpoint("inet", a, p), v4, st.sampled_from([0, 1, 80, 85, 91, 65535])),
    st.builds(lambda a, p: Endpoint("inet6", a, p), v6, st.sampled_from([0, 80, 443, 65535])),
    st.just(Endpoint("unix", path="/run/x")),
)


@settings(max_examples=400, deadline=None)
@given(rules_of, st.sampled_from(["allow", "deny"]), peers, st.lists(st.sampled_from(NAMES)))
def test_the_compiled_form_says_what_the_rules_say(
    rules: list[Rule], default: str, peer: Endpoint, names: list[str]
) -> None:
    policy = Policy(rules, default=default)
    assert policy.judge(peer, names=names) == walk(rules, default, peer, names)


def test_a_thousand_rules_first_match_wins() -> None:
    rules = [
        Rule(f"r{n}", "allow" if n % 2 else "deny", cidr=(f"10.{n // 256}.{n % 256}.0/24",))
        for n in range(1000)
    ]
    policy = Policy([*rules, Rule("last", "allow", cidr=("10.0.0.0/8",))], default="deny")
    for n in range(1000):
        peer = Endpoint("inet", f"10.{n // 256}.{n % 256}.7", 1)
        assert policy.judge(peer) == Verdict("allow" if n % 2 else "deny", f"r{n}")
    assert policy.judge(Endpoint("inet", "10.200.0.1", 1)).rule == "last"
    assert policy.judge(Endpoint("inet", "11.0.0.1", 1)) == Verdict("deny", "default")


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("127.0.0.1", "loop4"),
        ("::ffff:127.0.0.1", "loop4"),
        ("::ffff:7f00:1", "loop4"),
        ("0.0.0.0", "loop4"),  # connect(2) takes it for the loopback address
        ("::ffff:0.0.0.0", "loop4"),
        ("::1", "loop6"),
        ("::", "loop6"),
        ("::127.0.0.1", "rest6"),  # deprecated, and not the IPv4 address
        ("128.0.0.1", "default"),
    ],
)
def test_addresses_are_what_they_denote(address: str, rule: str) -> None:
    policy = parse_policy(
        b'default = "allow"\n'
        b'[[rule]]\nid = "loop4"\naction = "deny"\ncidr = "127.0.0.0/8"\n'
        b'[[rule]]\nid = "loop6"\naction = "deny"\ncidr = "::1"\n'
        # An IPv6 prefix around the mapped addresses does not reach IPv4.
        b'[[rule]]\nid = "rest6"\naction = "deny"\ncidr = "::/0"\n'
    )
    family = stock.AF_INET6 if ":" in address else stock.AF_INET
    encoded = _native.encode_address(family, 0, (address, 80))
    index = policy.native.judge(False, encoded, -1, [])
    assert ("default" if index < 0 else policy.rules[index].id) == rule


def test_a_mapped_prefix_is_the_ipv4_prefix() -> None:
    policy = parse_policy(
        b'[[rule]]\nid = "m"\naction = "allow"\ncidr = ["::ffff:10.0.0.0/104", "::ffff:0:0/97"]\n'
    )
    assert policy.rules[0].cidr == ("10.0.0.0/8", "0.0.0.0/1")
    assert policy.judge(Endpoint("inet", "10.9.9.9", 1)).rule == "m"


def test_every_family_can_be_named() -> None:
    for name in FAMILIES:
        policy = Policy([Rule("one", "allow", family=(name,))])
        peer = Endpoint("inet", "1.2.3.4", 1) if name == "inet" else None
        if name == "inet6":
            peer = Endpoint("inet6", "2001:db8::1", 1)
        peer = peer or Endpoint(name, raw="")
        assert policy.judge(peer).rule == "one"
        other = Endpoint(
            "inet" if name != "inet" else "inet6", "9.9.9.9" if name != "inet" else "2001:db8::", 1
        )
        assert policy.judge(other).rule == "default"


def test_ingress_is_judged_only_where_a_rule_is_for_it() -> None:
    egress = Policy([Rule("out", "allow", cidr=("10.0.0.0/8",))], default="deny")
    peer = Endpoint("inet", "192.0.2.1", 50000)
    assert egress.judge(peer, direction="ingress", port=80) == Verdict("allow", "")
    both = Policy([Rule("in", "allow", "ingress", cidr=("10.0.0.0/8",), port=((80, 80),))])
    assert both.judge(peer, direction="ingress", port=80) == Verdict("deny", "default")
    inside = Endpoint("inet", "10.0.0.1", 50000)
    assert both.judge(inside, direction="ingress", port=80) == Verdict("allow", "in")
    assert both.judge(inside, direction="ingress", port=81) == Verdict("deny", "default")


def test_hostile_bytes_are_judged_without_reading_past_them() -> None:
    policy = Policy([Rule("all", "deny")], default="allow")
    for length in range(0, 129):
        for family in (0, 1, 2, 10, 16, 38, 255):
            data = (family.to_bytes(2, "little") + b"\xff" * 126)[:length]
            assert policy.native.judge(False, data, -1, []) == 0
            endpoint(data)
    with pytest.raises(ValueError, match="longer than any address"):
        policy.native.judge(False, b"\0" * 200, -1, [])


def test_too_large_a_policy_is_refused() -> None:
    # 64 MiB of sets: each of these prefixes is an interval with a set of its own.
    rules = [
        Rule(f"r{n}", "deny", cidr=(f"10.{n >> 8 & 255}.{n & 255}.{n >> 16 << 4}/28",))
        for n in range(40_000)
    ]
    with pytest.raises(ValueError, match="64 MiB"):
        Policy(rules)


def test_replacing_the_policy_under_judging_threads() -> None:
    """Readers never see a freed policy, and always one of the two."""
    import tracesock as socket
    from tracesock.audit import clear_policy, use_policy

    allow = Policy([Rule("yes", "allow", cidr=("127.0.0.0/8",))], default="deny")
    deny = Policy([Rule(f"no{n}", "deny", cidr=(f"127.0.{n}.0/24",)) for n in range(200)])
    stop = threading.Event()
    seen: set[str] = set()
    failures: list[BaseException] = []

    def judge() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            while not stop.is_set():
                try:
                    sock.connect(("127.0.0.1", 9))
                    seen.add("yes")
                except PermissionError as error:
                    seen.add(error.rule)  # type: ignore[attr-defined]
                except BaseException as error:
                    failures.append(error)

    use_policy(allow)
    threads = [threading.Thread(target=judge) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for turn in range(300):
            use_policy(deny if turn % 2 else allow)
        while len(seen) < 2 and not failures:
            use_policy(deny)
            stop.wait(0.01)
            use_policy(allow)
            stop.wait(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        clear_policy()
    assert not failures
    assert seen == {"yes", "no0"}
