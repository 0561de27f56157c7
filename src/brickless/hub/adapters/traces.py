"""Traces over OTLP: a span for each request, named by its route, and one below it for each statement.

Loaded only with --traces-url. Spans hold routes, statuses and the text of statements, whose values are placeholders; no
path, query, header, address or value is ever in one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import event
from sqlalchemy.engine import Engine

_MAX_STATEMENT_CHARS = 2000


class RequestSpan:
    """`http.tracing.Span`."""

    def __init__(self, span: trace.Span, method: str) -> None:
        self._span = span
        self._method = method
        self._token = context.attach(trace.set_span_in_context(span))

    def end(self, route: str, status: int) -> None:
        """See `http.tracing.Span.end`."""
        context.detach(self._token)
        self._span.update_name(f"{self._method} {route or 'none'}")
        self._span.set_attribute("http.route", route)
        if status:
            self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


class Traces:
    """`http.tracing.Tracer`. `url` is where a collector takes OTLP over HTTP (`http://host:4318/v1/traces`)."""

    def __init__(self, url: str, *, share: float = 1.0) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "brickless-hub"}), sampler=ParentBased(TraceIdRatioBased(share))
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=10)))
        self._tracer = self._provider.get_tracer("brickless.hub")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, headers: Mapping[bytes, bytes]) -> RequestSpan:
        """See `http.tracing.Tracer.begin`."""
        carrier = {
            name: headers[name.encode()].decode("latin-1")
            for name in ("traceparent", "tracestate")
            if name.encode() in headers
        }
        parent = self._propagator.extract(carrier) if carrier else context.Context()
        attributes = {"http.request.method": method}
        span = self._tracer.start_span(method, parent, trace.SpanKind.SERVER, attributes)
        return RequestSpan(span, method)

    def watch(self, engine: Engine) -> None:
        """A span for each statement of this engine that belongs to a request."""

        def before(_conn: Any, _cursor: Any, statement: str, _parameters: Any, execution: Any, _many: bool) -> None:
            if execution is None or not trace.get_current_span().is_recording():
                return
            attributes = {
                "db.system.name": engine.dialect.name,
                "db.query.text": statement[:_MAX_STATEMENT_CHARS],
            }
            name = statement.split(None, 1)[0].upper()
            execution.brickless_span = self._tracer.start_span(name, None, trace.SpanKind.CLIENT, attributes)

        def after(_conn: Any, _cursor: Any, _statement: str, _parameters: Any, execution: Any, _many: bool) -> None:
            span = getattr(execution, "brickless_span", None)
            if span is not None:
                span.end()

        def failed(broken: Any) -> None:
            span = getattr(broken.execution_context, "brickless_span", None)
            if span is not None:
                span.set_status(trace.StatusCode.ERROR)
                span.end()

        event.listen(engine, "before_cursor_execute", before)
        event.listen(engine, "after_cursor_execute", after)
        event.listen(engine, "handle_error", failed)

    def stop(self) -> None:
        """Hand over what waits. Blocks for at most the exporter's ten seconds."""
        self._provider.shutdown()
