"""The contract of client and server, and what both write alike. The version of all three stands here."""

__version__ = "0.1.0"
