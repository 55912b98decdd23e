"""A session: its calls in order, the threads that wait for them, what came back, and what it stands for in Python."""
