"""TLS for clients: the certificate of a mounted Secret, renewed while connections stay, and a listener of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

CERTIFICATE = "tls.crt"
PRIVATE_KEY = "tls.key"
POLL_SECONDS = 2.0
MAX_HANDSHAKES = 256
"""Handshakes at a time; a newcomer beyond it ends the oldest, so who does not speak keeps nobody out."""
_PAUSE_SECONDS = 0.1
"""Before the next try where no connection can be taken, say for want of descriptors."""

log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int], ...]


class CertificateError(Exception):
    """The certificate or its key cannot be used."""


class Certificate:
    """The context of the listener: a handshake gets what was read last, and open connections keep what they have."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.stamp = self._stamp()
        self._current = self._read()
        self.context = self._read()
        self.context.sni_callback = self._select

    def renew(self) -> bool:
        """Read it again where it has changed; whether it had. `CertificateError` where the new one cannot be used."""
        stamp = self._stamp()
        if stamp == self.stamp:
            return False
        self._current = self._read()
        self.stamp = stamp
        return True

    def _select(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            # An encrypted key is refused: without this, OpenSSL would ask the terminal for its password.
            context.load_cert_chain(self._directory / CERTIFICATE, self._directory / PRIVATE_KEY, _no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise self._unusable(error) from error
        return context

    def _stamp(self) -> Stamp:
        try:
            found = [(self._directory / name).stat() for name in (CERTIFICATE, PRIVATE_KEY)]
        except OSError as error:
            raise self._unusable(error) from error
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)

    def _unusable(self, error: Exception) -> CertificateError:
        return CertificateError(
            f"{self._directory}: {CERTIFICATE} and {PRIVATE_KEY} cannot be used ({error}); put a certificate there, and"
            " its key, both in PEM and not encrypted (LARGEFORGE_TLS_DIR)"
        )


async def follow(certificate: Certificate, *, every_seconds: float = POLL_SECONDS) -> None:
    """Take over each new certificate, for ever; the last good one stays where a new one cannot be used."""
    reported = ""
    while True:
        await asyncio.sleep(every_seconds)
        try:
            renewed = await asyncio.to_thread(certificate.renew)
        except CertificateError as error:
            if str(error) != reported:
                reported = str(error)
                log.error("the last certificate stays in use: %s", error)  # noqa: TRY400 - it is a configuration
        else:
            reported = ""
            if renewed:
                log.info("the certificate has changed")


class Listener:
    """Accepts connections and gives each to a protocol once its handshake is done, within a time."""

    def __init__(
        self,
        sock: socket.socket,
        certificate: Certificate,
        protocol: Callable[[], asyncio.Protocol],
        *,
        handshake_seconds: float,
    ) -> None:
        self._sock = sock
        self._context = certificate.context
        self._protocol = protocol
        self._handshake_seconds = handshake_seconds
        self._loop = asyncio.get_running_loop()
        self._handshakes: dict[asyncio.Task[None], None] = {}
        """Those under way, the oldest first."""
        self._accepting = self._loop.create_task(self._accept())

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._sock.getsockname()[1])

    async def close(self) -> None:
        """Take no more; connections whose handshake is done go on."""
        tasks = [self._accepting, *self._handshakes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._sock.close()

    async def _accept(self) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(self._sock)
            except OSError as error:
                log.warning("no connection can be taken: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if len(self._handshakes) >= MAX_HANDSHAKES:
                next(iter(self._handshakes)).cancel()
            task = self._loop.create_task(self._shake_hands(connection))
            self._handshakes[task] = None
            task.add_done_callback(self._handshakes.pop)

    async def _shake_hands(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_seconds,
                ssl_shutdown_timeout=self._handshake_seconds,
            )
        except OSError:
            # Plain HTTP, an old version of TLS, a scan of ports, silence: its transport has closed it.
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise


def bind(host: str, port: int, *, backlog: int) -> socket.socket:
    """A socket that listens there."""
    sock = socket.create_server(
        (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=backlog
    )
    sock.setblocking(False)
    return sock


def _no_password() -> str:
    raise ValueError("the key is encrypted")
