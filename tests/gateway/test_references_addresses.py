"""Where a picture may be fetched from: hosts, addresses, redirects, sizes, times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.gateway.fetch_addresses import MachineNames, is_public
from smoothing_proxy.gateway.fetch_http import HttpPictures
from smoothing_proxy.gateway.references_settings import ReferencesTable
from smoothing_proxy.settings_file import parse_settings
from smoothing_proxy.wire.base import Fault, FetchFault, Place
from tests.gateway.gateways import picture
from tests.gateway.picture_hosts import PictureHost, picture_host
from tests.gateway.test_serve import certificate

MOST = 2**20
HOST = "images.example.com"


class Names:
    """A resolver that keeps what it was asked; names that it does not know are at 127.0.0.1."""

    def __init__(self, **known: Sequence[str]) -> None:
        self.asked: list[str] = []
        self._known = known

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._known.get(host.partition(".")[0], ["127.0.0.1"])


def table(host: PictureHost | None = None, **values: Any) -> ReferencesTable:
    ports = () if host is None else (host.port,)
    usual = {"hosts": (HOST, "*.cdn.example.com"), "schemes": ("https", "http"), "ports": ports, "timeout_s": 5.0}
    return ReferencesTable(**{**usual, **values})


def at(host: PictureHost, path: str, name: str = HOST) -> Place:
    scheme = host.url.partition(":")[0]
    return Place(f"{scheme}://{name}:{host.port}{path}", MOST)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("100.100.100.200", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("192.0.0.192", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::127.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("fd00:ec2::254", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("2001:db8::1", False),
        ("2001:0:7f00:1::", False),
        ("2002:7f00:1::", False),
        ("2002:a9fe:a9fe::1", False),
        ("2002:5db8:d822::1", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b:1::5db8:d822", False),
    ],
)
def test_an_address_is_public_only_where_nobody_in_the_house_has_it(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        (f"https://{HOST}/a.png?token=x#part", True),
        ("https://IMAGES.example.COM/a.png", True),
        (f"https://{HOST}:443/a", True),
        ("https://eu.cdn.example.com/a", True),
        ("https://a.b.cdn.example.com/a", True),
        ("https://cdn.example.com/a", False),
        ("https://evilcdn.example.com/a", False),
        ("https://.cdn.example.com/a", False),
        (f"https://{HOST}.evil.com/a", False),
        (f"https://x{HOST}/a", False),
        (f"https://{HOST}./a", False),
        (f"http://{HOST}/a", False),
        (f"ftp://{HOST}/a", False),
        ("file:///etc/passwd", False),
        (f"//{HOST}/a", False),
        (f"{HOST}/a", False),
        (f"https://{HOST}:8443/a", False),
        (f"https://{HOST}:80/a", False),
        (f"https://user@{HOST}/a", False),
        (f"https://user:word@{HOST}/a", False),
        (f"https://:@{HOST}/a", False),
        (f"https://evil.com@{HOST}/a", False),
        (f"https://{HOST}@evil.com/a", False),
        (f"https://evil.com\\@{HOST}/a", False),
        (f"https://evil.com#@{HOST}/a", False),
        (f"https://{HOST}\r\nX: y/a", False),
        (f"https://{HOST}/a b", False),
        (f" https://{HOST}/a", False),
        ("https://127.0.0.1/a", False),
        ("https://2130706433/a", False),
        ("https://[::1]/a", False),
        ("https://[", False),
        ("https:///a", False),
        ("", False),
        (f"https://{HOST}/{'a' * 9_000}", False),
    ],
)
def test_only_what_is_listed_is_fetched(address: str, allowed: bool) -> None:
    pictures = HttpPictures(ReferencesTable(hosts=(HOST, "*.cdn.example.com")))
    assert pictures.allows(Place(address, MOST)) is allowed


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "hosts, buckets"),
        ({"hosts": ["*"]}, "hosts.0"),
        ({"hosts": ["*.com"]}, "hosts.0"),
        ({"hosts": ["a*.example.com"]}, "hosts.0"),
        ({"hosts": ["https://example.com"]}, "hosts.0"),
        ({"hosts": ["example.com:443"]}, "hosts.0"),
        ({"hosts": ["user@example.com"]}, "hosts.0"),
        ({"buckets": ["pictures"]}, "buckets.0"),
        ({"buckets": ["s3://pictures/folder"]}, "buckets.0"),
        ({"hosts": [HOST], "redirects": 4}, "redirects"),
        ({"hosts": [HOST], "schemes": []}, "schemes"),
        ({"host": [HOST]}, "did you mean 'hosts'"),
    ],
)
def test_a_list_that_says_too_much_or_nothing_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_settings(ReferencesTable, values, source="gateway.toml")


def test_a_host_is_compared_as_it_is_written_in_addresses() -> None:
    pictures = HttpPictures(ReferencesTable(hosts=("Bücher.example",)))
    assert pictures.allows(Place("https://bücher.example/a", MOST))
    assert pictures.allows(Place("https://xn--bcher-kva.example/a", MOST))


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["127.0.0.1", "2130706433", "0x7f.1", "localhost"])
async def test_however_the_machine_itself_is_named_it_is_not_public(name: str) -> None:
    addresses = await MachineNames(1)(name, 80)
    assert addresses
    assert not any(map(is_public, addresses))


@pytest.mark.anyio
async def test_the_connection_goes_to_the_address_that_was_looked_up() -> None:
    names = Names()
    with picture_host() as host:
        host.put("/a.png", picture())
        pictures = HttpPictures(table(host, allow_private=True), names)
        assert await pictures.fetch(at(host, "/a.png?x=1"), MOST) == picture()
    (asked,) = host.asked
    assert names.asked == [HOST]
    assert asked.headers["host"] == f"{HOST}:{host.port}"
    assert asked.target == "/a.png?x=1"
    assert asked.headers["accept-encoding"] == "identity"
    assert not {"authorization", "cookie", "referer"} & set(asked.headers)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]]
)
async def test_a_name_that_leads_into_the_house_is_not_connected_to(addresses: list[str]) -> None:
    with picture_host() as host:
        host.put("/a.png", picture())
        pictures = HttpPictures(table(host), Names(images=addresses))
        with pytest.raises(FetchFault) as raised:
            await pictures.fetch(at(host, "/a.png"), MOST)
    assert host.asked == []
    assert raised.value.message == "the picture could not be fetched: its address cannot be reached from here"


@pytest.mark.anyio
async def test_each_redirect_is_looked_up_and_checked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from smoothing_proxy.gateway import fetch_addresses

    names = Names(images=["127.0.0.1"], eu=["127.0.0.2"])
    monkeypatch.setattr(fetch_addresses, "is_public", lambda address: address == "127.0.0.1")
    with picture_host() as host:
        host.put("/a", b"", 302, {"location": at(host, "/b", "eu.cdn.example.com").address})
        host.put("/b", picture())
        with pytest.raises(FetchFault, match="cannot be reached"):
            await HttpPictures(table(host), names).fetch(at(host, "/a"), MOST)
    assert names.asked == [HOST, "eu.cdn.example.com"]
    assert [request.path for request in host.asked] == ["/a"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://evil.example/a", "leads to one from which"),
        ("//evil.example/a", "leads to one from which"),
        ("http://127.0.0.1/a", "leads to one from which"),
        ("http://user:word@images.example.com/a", "leads to one from which"),
        ("file:///etc/passwd", "leads to one from which"),
        ("/a", "more than 3 times"),
    ],
)
async def test_no_redirect_leads_out_of_the_list_or_on_and_on(location: str, said: str) -> None:
    with picture_host() as host:
        host.put("/a", b"", 302, {"location": location})
        with pytest.raises(FetchFault, match=said):
            await HttpPictures(table(host, allow_private=True), Names()).fetch(at(host, "/a"), MOST)
    assert len(host.asked) == (4 if location == "/a" else 1)


@pytest.mark.anyio
async def test_three_redirects_are_followed() -> None:
    with picture_host() as host:
        for step in range(3):
            host.put(f"/{step}", b"", 307, {"location": f"{step + 1}"})
        host.put("/3", picture())
        fetched = await HttpPictures(table(host, allow_private=True), Names()).fetch(at(host, "/0"), MOST)
    assert fetched == picture()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "fault", "said"),
    [
        ("/missing", Fault.BAD_REQUEST, "answers 404"),
        ("/broken", Fault.BAD_REQUEST, "answers 500"),
        ("/packed", Fault.BAD_REQUEST, "another encoding"),
        ("/large", Fault.IMAGE_TOO_LARGE, "larger than"),
        ("/endless", Fault.IMAGE_TOO_LARGE, "larger than"),
    ],
)
async def test_what_is_no_picture_of_a_fair_size_is_refused(path: str, fault: Fault, said: str) -> None:
    with picture_host() as host:
        host.endless = ("/endless",)
        host.put("/endless", b"")
        host.put("/broken", b"secret of the house", 500)
        host.put("/packed", picture(), 200, {"content-encoding": "gzip"})
        host.put("/large", bytes(MOST + 1))
        with pytest.raises(FetchFault, match=said) as raised:
            await HttpPictures(table(host, allow_private=True), Names()).fetch(at(host, path), MOST)
    assert raised.value.fault is fault


@pytest.mark.anyio
async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with picture_host() as host, picture_host() as proxy:
        host.put("/a.png", picture())
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        pictures = HttpPictures(table(host, allow_private=True), Names())
        assert await pictures.fetch(at(host, "/a.png"), MOST) == picture()
    assert proxy.asked == []


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "trusted", "works"), [("localhost", True, True), ("localhost", False, False)])
async def test_the_host_has_to_prove_its_name(tmp_path: Path, name: str, trusted: bool, works: bool) -> None:
    """The certificate is for localhost, whatever address that name has."""
    cert = certificate(tmp_path)
    with picture_host(cert) as host:
        host.put("/a.png", picture())
        ca_file = cert[0] if trusted else None
        listed = table(host, hosts=("localhost", HOST), allow_private=True, ca_file=ca_file)
        pictures = HttpPictures(listed, Names())
        if works:
            assert await pictures.fetch(at(host, "/a.png", name), MOST) == picture()
            name = HOST
        with pytest.raises(FetchFault, match="cannot be reached"):
            await pictures.fetch(at(host, "/a.png", name), MOST)


def test_authorities_that_are_none_are_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("none")
    for name in ("none.pem", "missing.pem"):
        with pytest.raises(ConfigError, match=r"ca_file"):
            HttpPictures(table(ca_file=tmp_path / name))
