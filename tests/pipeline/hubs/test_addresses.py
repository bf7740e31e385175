"""Which addresses count as the internet: the list of tricks that server-side request forgery knows."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from pipeline.errors import Unreachable, UnsafeAnswer
from pipeline.hubs.addresses import LOOKED_UP_S, is_public, public_addresses

INNER = [
    "127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "0.0.0.0", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",  # IPv4 inside IPv6
    "2002:7f00:1::", "2002:a00:1::",  # 6to4
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1",  # NAT64
    "2001:0:7f00:1::",  # Teredo
    "0x7f000001", "2130706433", "127.1", "localhost", "", "1.2.3.4.5",  # no address in the form that resolvers answer
]  # fmt: skip

PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "172.32.0.1"]


@pytest.mark.parametrize("address", INNER)
def test_inner_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


def answers(*addresses: str) -> Any:
    def resolve(host: str, port: int, **options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return resolve


def test_all_addresses_of_a_host_are_returned_once_each() -> None:
    resolve = answers("1.1.1.1", "1.1.1.1", "2606:4700::1111")
    assert public_addresses("hf.co", 443, resolve, LOOKED_UP_S) == ["1.1.1.1", "2606:4700::1111"]


@pytest.mark.parametrize("others", [(), ("1.1.1.1",)])
def test_one_inner_address_is_enough_to_refuse_a_host(others: tuple[str, ...]) -> None:
    with pytest.raises(UnsafeAnswer, match=r"cdn\.hf\.co: has the address 10\.0\.0\.1"):
        public_addresses("cdn.hf.co", 443, answers(*others, "10.0.0.1"), LOOKED_UP_S)


def unknown(*args: Any, **options: Any) -> list[Any]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize("resolve", [unknown, answers()])
def test_a_host_without_addresses_is_out_of_reach(resolve: Any) -> None:
    with pytest.raises(Unreachable, match=r"hf\.co: its address cannot be found; is there a network\?"):
        public_addresses("hf.co", 443, resolve, LOOKED_UP_S)
