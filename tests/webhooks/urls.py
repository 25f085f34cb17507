"""URLs behind which something answers that nobody outside may reach, in every spelling we know.

`PORT` is where sentinels listen, on every address of this machine.
"""

PORT = "{port}"

_V4 = (
    *("0.0.0.0", "0.0.0.1", "0.255.255.255", "10.0.0.1", "10.255.255.255", "100.64.0.1"),
    *("100.127.255.255", "127.0.0.1", "127.0.0.2", "127.1.2.3", "127.255.255.254", "169.254.0.1"),
    *("169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1"),
    *("192.0.0.170", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1"),
    *("192.168.255.255", "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
)
_V6 = (
    *("::", "::1", "0:0:0:0:0:0:0:1", "0000:0000:0000:0000:0000:0000:0000:0001", "::127.0.0.1"),
    *("::ffff:127.0.0.1", "::ffff:7f00:1", "::FFFF:7F00:0001", "::ffff:0:127.0.0.1"),
    *("::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "::ffff:8.8.8.8"),
    *("64:ff9b::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::127.0.0.1"),
    *("100::1", "2001::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:2::1", "2001:10::1"),
    *("2001:20::1", "2001:db8::1", "2002:7f00:1::1", "2002:a00:1::", "2002:a9fe:a9fe::1"),
    *("2620:4f:8000::1", "3fff::1", "5f00::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fe80::1"),
    *("febf::1", "fec0::1", "ff01::1", "ff02::1", "ff0e::1", "::1.2.3.4"),
)
_NUMBERS = (
    *("127.1", "127.0.1", "127.0.0.1.", "127.0.0.1..", "2130706433", "2130706433.", "0x7f000001"),
    *("0x7f.1", "0x7f.0.0.1", "0x7F.0x0.0x0.0x1", "0177.1", "0177.0.0.1", "0177.0.0.01"),
    *("017700000001", "127.000.000.001", "127.0.0.01", "0127.0.0.1", "00000177.0.0.1", "0", "0.0"),
    *("1.1", "127.0.0.0x1", "127.0.0.1e0", "4294967295", "3232235521", "0xa9fea9fe", "2852039166"),
    *("169.254.43518", "0251.0376.0251.0376", "0xa9.0xfe.0xa9.0xfe", "127.0.0.1.1", "127..1"),
    *("1127.0.0.1", "127.0.0.256", "0x", "foo.0x1", "foo.1", "-1", "+127.0.0.1"),
)
_NAMES = (
    *("localhost", "LOCALHOST", "LocalHost", "localhost.", "localhost..", "localhost.localdomain"),
    *("ip6-localhost", "ip6-loopback", "-localhost", "localhost-", "local_host", "a..b", ".", ""),
    *("%6cocalhost", "localhost%2e", "localhost%00", "localhost%00.example.org", "[localhost]"),
    *("l\u00f6calhost", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "127.0.0.1\u3002"),
    *("\u2488\u2488", "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3", "localho\u017ft"),
    *("loc\u00adalhost", "xn--lcalhost-d4a", "a" * 64 + ".org", ".".join(["a" * 60] * 5)),
)
_BRACKETS = (
    *("[::1", "::1", "[::1]]", "[[::1]]", "[::1%lo]", "[::1%25lo]", "[::1%1]", "[fe80::1%25eth0]"),
    *("[127.0.0.1]", "[::ffff:127.0.0.1%25lo]", "[::1].example.org", "[:::1]", "[::1]example.org"),
    *("[v1.fe80::a]", "[]", "[::g]", "[0x7f::1]"),
)
_WHOLE = (
    *("http://user@127.0.0.1:{port}/", "http://user:secret@127.0.0.1:{port}/"),
    *("http://example.org@127.0.0.1:{port}/", "http://127.0.0.1:{port}@example.org/"),
    *("http://example.org#@127.0.0.1:{port}/", "http://127.0.0.1:{port}#@example.org/"),
    *("http://example.org\\@127.0.0.1:{port}/", "http://127.0.0.1:{port}\\@example.org/"),
    *("http://127.0.0.1\\.example.org:{port}/", "http:\\\\127.0.0.1:{port}\\"),
    *("http://127.0.0.1:{port}\r\nHost: example.org\r\n\r\n", "http://127.0.0.1\t:{port}/"),
    *("http://127.0.0.1\n:{port}/", " http://127.0.0.1:{port}/", "http://127.0.0.1:{port}/ "),
    *("http://127.0.0.1:{port}/\x00", "http://127.0.0.1 :{port}/", "http:// 127.0.0.1:{port}/"),
    *("http:127.0.0.1:{port}/", "http:/127.0.0.1:{port}/", "http:///127.0.0.1:{port}/"),
    *("//127.0.0.1:{port}/", "127.0.0.1:{port}", "HTTP://127.0.0.1:{port}/"),
    *("hTTps://127.0.0.1:{port}/", "http://127.0.0.1:0{port}/", "http://127.0.0.1:+{port}/"),
    *("http://127.0.0.1:{port}:80/", "http://127.0.0.1:/", "http://127.0.0.1:0/"),
    *("http://127.0.0.1:65536/", "http://127.0.0.1:99999/", "http://127.0.0.1:-1/"),
    *("http://127.0.0.1:\uff18\uff10/", "http://127.0.0.1:{port}/\u00e9", "https://127.0.0.1:443/"),
    *(
        "http://127.0.0.1:{port}?x=1",
        "http://127.0.0.1:{port}/;x",
        "http://127.0.0.1:{port}/%2e%2e",
    ),
    *("http://127.0.0.1:22/", "http://127.0.0.1:6379/", "http://[::1]:22/", "http://localhost:25/"),
    *("ftp://127.0.0.1:{port}/", "gopher://127.0.0.1:{port}/_x", "file:///etc/passwd"),
    *("dict://127.0.0.1:{port}/", "ws://127.0.0.1:{port}/", "unix:///var/run/docker.sock"),
    *("data:text/plain,x", "javascript:alert(1)", "jar:http://127.0.0.1:{port}/!/", "http://", ""),
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
)

HOSTILE = tuple(
    dict.fromkeys(
        [
            *(f"http://{host}:{PORT}/" for host in (*_V4, *_NUMBERS, *_NAMES, *_BRACKETS)),
            *(f"https://{host}:{PORT}/" for host in (*_V4, *_NUMBERS, *_NAMES)),
            *(f"{scheme}://[{host}]:{PORT}/" for host in _V6 for scheme in ("http", "https")),
            *_WHOLE,
        ]
    )
)
"""With `{port}` where a port stands, to be filled in."""

REBINDING = (
    *(("93.184.216.34", host) for host in ("127.0.0.1", "10.0.0.1", "169.254.169.254")),
    ("2606:2800:220:1:248:1893:25c8:1946", "::1"),
    ("93.184.216.34", "::ffff:127.0.0.1"),
    ("127.0.0.1",),
    ("::1",),
    ("fe80::1%lo",),
    ("nonsense",),
    (),
)
"""What a resolver may say of a name that a delivery must not be sent to then."""
