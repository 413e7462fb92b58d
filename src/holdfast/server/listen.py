"""Where the server listens, and whether it may: found out before anything is opened or served."""

import errno
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.errors import Misconfigured
from holdfast.serving import ServerSpec


@contextmanager
def listen(host: str, port: int, settings: str) -> Iterator[socket.socket]:
    """
    A socket that listens on ``host`` and ``port`` for the length of the block.

    Args:
        host: Name or address.
        port: TCP port; 0 takes any free one.
        settings: What the settings of the two are called, up to ``host`` and ``port``: ``server.``

    Raises:
        Misconfigured: there is no such address here, or the port is taken or not for us.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(2048)
        except (OSError, ValueError) as error:
            code = error.errno if isinstance(error, OSError) else None
            said = (getattr(error, "strerror", None) or str(error)).lower()
            advice = {
                errno.EADDRINUSE: f"stop what listens there, or set {settings}port to a free one",
                errno.EACCES: f"set {settings}port to one above 1023",
            }.get(code or 0, f"correct {settings}host")
            raise Misconfigured(f"cannot listen on {_address(host, port)}: {said}; {advice}") from error
        yield listener


def only_here(listener: socket.socket) -> bool:
    """Whether only this machine can reach ``listener``."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Where ``listener`` can be reached."""
    return f"{scheme}://{_address(*listener.getsockname()[:2])}"


def check_tls(spec: ServerSpec) -> None:
    """
    Read the certificate and its key, where they are set.

    Raises:
        Misconfigured: they cannot be used.
    """
    if spec.tls_cert is None:
        return
    try:
        # A key with a passphrase would have OpenSSL ask for it on the terminal.
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(spec.tls_cert, spec.tls_key, password=lambda: "")
    except (OSError, ValueError) as error:
        missing = [str(path) for path in (spec.tls_cert, spec.tls_key) if path is not None and not path.is_file()]
        said = f"there is no file {missing[0]}" if missing else str(error)
        raise Misconfigured(
            f"server.tls_cert and server.tls_key cannot be used: {said}; they must be a PEM certificate and its "
            "private key without passphrase"
        ) from error


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
