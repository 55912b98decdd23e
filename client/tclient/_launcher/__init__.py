"""Programs that say `import torch`, run unchanged on a server: the import, the command line, a server of one's own.

alias     for this process, the modules of torch mean tclient
version   torch's version, as programs compare it
command   `tclient run`
local     a server on this machine, for as long as a program runs
"""
