"""Traces of a hub, as a collector receives them over OTLP; and nothing of them while they are off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from brickless.linux.process import run
from brickless.testkit.hub import running_hub
from brickless.testkit.hub_client import Caller, claimed_device

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector(ThreadingHTTPServer):
    """Takes spans on the path that every collector has."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.spans: list[Span] = []
        self.services: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        import gzip

        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            self.server.services |= {
                item.value.string_value for item in resource.resource.attributes if item.key == "service.name"
            }
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class has this name
        """Nothing."""


@contextmanager
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_a_request_and_its_statements_are_spans_of_the_callers_trace(tmp_path: Path) -> None:
    with collector() as traces:
        arguments = ["--traces-url", f"http://127.0.0.1:{traces.server_port}/v1/traces"]
        with running_hub(str(tmp_path / "data"), arguments=arguments) as hub:
            with httpx.Client(base_url=hub.url) as client:
                user = Caller(client).login("user1", "user1")
                device = claimed_device(user).start_trail()
                user.get(f"/devices/{device.id}?owner=sesame", headers={"traceparent": PARENT})
                device.get(f"/trails/{device.id}/steps")
                device.get(f"/trails/{device.id}/steps")
                user.get(f"/trails/{'0' * 24}/steps")
                client.get("/made-up/sesame")
            assert hub.stop() == 0
        assert traces.services == {"brickless-hub"}
        servers = [span for span in traces.spans if span.kind == Span.SPAN_KIND_SERVER]
        names = [span.name for span in servers]
        assert "GET /devices/{id}" in names
        assert names.count("GET /trails/{id}/steps") == 3
        (traced,) = [span for span in servers if span.trace_id.hex() == PARENT.split("-")[1]]
        assert (traced.name, traced.parent_span_id.hex()) == ("GET /devices/{id}", PARENT.split("-")[2])
        below = [span for span in traces.spans if span.parent_span_id == traced.span_id]
        assert below
        assert {span.name for span in below} <= {"BEGIN", "SELECT"}
        assert "SELECT" in {span.name for span in below}
        idle = servers[names.index("GET /trails/{id}/steps") + 1]
        assert not [span for span in traces.spans if span.parent_span_id == idle.span_id]
        statuses = {item.value.int_value for span in servers for item in span.attributes if "status" in item.key}
        assert {200, 404} <= statuses
        text = str(traces.spans)
        for secret in (user.token, device.token, device.secret, device.id, "sesame"):
            assert secret not in text


def test_a_collector_that_is_away_costs_no_request(tmp_path: Path) -> None:
    arguments = ["--traces-url", "http://127.0.0.1:9/v1/traces"]
    with running_hub(str(tmp_path / "data"), arguments=arguments) as hub, httpx.Client(base_url=hub.url) as client:
        for _ in range(20):
            assert Caller(client).login("user1", "user1").token


def test_nothing_is_loaded_while_traces_are_off() -> None:
    import sys

    program = "import sys, brickless.hub.__main__; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = run([sys.executable, "-c", program], purpose="looking at modules", timeout_s=60)
    assert done.stdout == b"[]\n"
