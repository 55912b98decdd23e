"""What a lesson says."""

HELLO = "hello"
