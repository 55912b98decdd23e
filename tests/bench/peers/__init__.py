"""The yardsticks that are servers: each is a process that prints its port and serves until it is ended."""
