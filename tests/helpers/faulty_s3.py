"""A proxy in front of the S3 server that fails on purpose, for requests that have no body.

It passes on requests as they are, so that their signatures stay good.
"""

from __future__ import annotations

import collections
import http.client
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["none", "503", "cut", "hang up", "silence"]


@dataclass
class Faults:
    """What the proxy does to requests of objects whose path holds `of`.

    Attributes:
        kind: 503 answers so; cut ends in mid-answer; hang up closes at once; silence never answers.
        times: for the first requests of each object; None for ever.
        delay_seconds: before every answer.
        counts: requests of each object so far; a HEAD has no answer that could be cut.
    """

    kind: Fault = "none"
    of: str = ".parquet"
    times: int | None = None
    delay_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self.is_over = threading.Event()

    def next_fault(self, method: str, path: str) -> Fault:
        """Of a request that has just come."""
        path = urlsplit(path).path
        if self.of not in path or (self.kind == "cut" and method == "HEAD"):
            return "none"
        with self._lock:
            self.counts[path] += 1
            is_due = self.times is None or self.counts[path] <= self.times
        return self.kind if is_due else "none"


@contextmanager
def faulty_endpoint(endpoint: str, faults: Faults) -> Iterator[str]:
    """The URL of a proxy in front of the server at the URL `endpoint`."""

    class Handler(_Handler):
        upstream = urlsplit(endpoint).netloc
        state = faults

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        faults.is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: str
    state: Faults

    def do_GET(self) -> None:
        fault = self.state.next_fault(self.command, self.path)
        time.sleep(self.state.delay_seconds)
        match fault:
            case "503":
                self._answer(503, {}, b"")
            case "hang up":
                self.close_connection = True
            case "silence":
                self.state.is_over.wait()
                self.close_connection = True
            case _:
                self._pass_on(is_cut=fault == "cut")

    do_HEAD = do_GET

    def _pass_on(self, *, is_cut: bool) -> None:
        connection = http.client.HTTPConnection(self.upstream)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
        headers = dict(response.getheaders())
        connection.close()
        if is_cut and body:
            self._answer(response.status, headers, body, num_sent=len(body) // 2)
            self.close_connection = True
        else:
            self._answer(response.status, headers, body)

    def _answer(
        self, status: int, headers: Mapping[str, str], body: bytes, num_sent: int | None = None
    ) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length", str(len(body)))
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        self.wfile.write(body[:num_sent])

    def log_message(self, *args: object) -> None:
        """Nothing: a test reads what it needs from `Faults`."""
