"""What the commands of `tserver` do before and beside a server: its settings, and whether they can be.

settings    as options, variables and a file
places      whether what they name is there
remote      how a command reaches a running server
models      the models of a directory or a server
doctor      whether a server would run here
"""
