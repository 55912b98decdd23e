"""Helpers of the tests: a raw client on the generated stubs, a proxy that breaks connections, a server as a child."""
