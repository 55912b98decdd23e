"""Values and bytes: how arguments, answers and operations are written. Pure: no socket, no thread, no session."""
