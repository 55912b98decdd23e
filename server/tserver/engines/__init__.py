"""Engines: what runs the requests of callers, behind a port, wherever it is.

port          what the front needs of an engine
in_process    the engine that runs in this very process
model_calls   what a session and the models do together
watchdog      notices an engine that does not go on
processes     engines that are children of the supervisor, as the front asks for them
control       what those two say to each other
"""
