"""Tensors of sessions, and the calls that run on them.

Knows torch; does not know gRPC. Owns every device allocation.
"""
