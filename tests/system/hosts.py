"""Two hosts of one network on this machine: network namespaces, where root may make them."""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator

ADDRESSES = ["10.77.0.1", "10.77.0.2"]
_CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def two_hosts() -> Iterator[list[str] | None]:
    """The names of two hosts at ADDRESSES for `enter`; None: this process may not make them."""
    names = [f"multihot-{os.getpid()}-{i}" for i in range(2)]
    try:
        yield names if _made(names) else None
    finally:
        for name in names:
            _ip("netns", "delete", name)


def _made(names: list[str]) -> bool:
    first, second = names
    return all(_ip("netns", "add", name) for name in names) and all(
        [
            _ip(
                *("link", "add", "eth0", "netns", first),
                *("type", "veth", "peer", "name", "eth0", "netns", second),
            ),
            *(
                _ip("-n", name, *arguments)
                for name, address in zip(names, ADDRESSES, strict=True)
                for arguments in (
                    ("address", "add", f"{address}/24", "dev", "eth0"),
                    ("link", "set", "eth0", "up"),
                    ("link", "set", "lo", "up"),
                )
            ),
        ]
    )


def _ip(*arguments: str) -> bool:
    if os.geteuid() or not shutil.which("ip"):
        return False
    return subprocess.run(["ip", *arguments], capture_output=True).returncode == 0


def enter(name: str) -> None:
    """Moves the calling process, which must have one thread, to a host."""
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {name}")
    finally:
        os.close(descriptor)
