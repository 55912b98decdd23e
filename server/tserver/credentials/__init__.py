"""Credentials that are set up: tokens, keys of who issues them, certificates. Knows neither gRPC nor torch."""
