"""A web server with TLS on this machine, and whoever trusts it."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from laconic.device_sim.datasets.fetching import Published

PIECE_BYTES = 1000


class Site:
    """What is at each path: bytes, or an address to go to instead; `pause_s` between pieces of bytes."""

    def __init__(self, port: int, trust: ssl.SSLContext, pages: dict[str, bytes | str]) -> None:
        self.port, self.trust, self.pages = port, trust, pages
        self.pause_s = 0.0
        self.asked: list[str] = []

    def publish(self, name: str, content: bytes) -> Published:
        """Put a file there; how it is told about."""
        self.pages[f"/{name}"] = content
        return Published(name, hashlib.sha256(content).hexdigest(), len(content), self.url(name))

    def url(self, name: str) -> str:
        return f"https://127.0.0.1:{self.port}/{name}"


@contextmanager
def site(folder: Path, pages: Mapping[str, bytes | str] = {}) -> Iterator[Site]:
    """A site with a certificate of its own."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "1", "-subj", "/CN=hub", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            page = found.pages.get(self.path)
            if page is None:
                self.send_error(404)
                return
            if isinstance(page, str):
                self.send_response(302)
                self.send_header("Location", page)
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            try:
                for start in range(0, len(page), PIECE_BYTES):
                    self.wfile.write(page[start : start + PIECE_BYTES])
                    self.wfile.flush()
                    time.sleep(found.pause_s)
            except OSError:
                pass  # Whoever asked has gone away.

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    found = Site(server.server_address[1], ssl.create_default_context(cafile=cert), dict(pages))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
