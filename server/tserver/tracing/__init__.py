"""Traces: what became of a request, as spans that a collector of OpenTelemetry takes. Off unless the server is told."""
