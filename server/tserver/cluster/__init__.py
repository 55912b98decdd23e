"""Engines on many hosts, which Ray starts and starts again: as actors, each with a process of its own.

    directory      one actor: which engines serve where; told by them, rebuilt from them when it dies
    engine         an actor for each engine; its child process is the engine, torch and gRPC and all
    front          an actor for each host; its child process is the front, which is the address there

Actors hold no torch and no gRPC: Ray's own gRPC is in them, and a fault of torch takes down a child alone. Ray is
imported by commands.py, connection.py and actors.py; what the others do can be tried without it.
"""
