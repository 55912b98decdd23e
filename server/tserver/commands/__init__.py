"""What the commands of `tserver` do before and beside a server: its settings, and whether they can be.

settings    as options, variables and a file
places      whether what they name is there
"""
