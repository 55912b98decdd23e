"""Starts the processes of a server, and starts each again that a fault took down or that hangs. Never imports torch.

One server:

    supervisor (this process)  --- holds nothing, is told SIGTERM and SIGINT, forwards
        └── server             --- gRPC, sessions, torch; ends when the supervisor does

A house of engines:

    supervisor
        ├── front              --- the address; which engine has what; asks for engines over a socket
        ├── fork server        --- has imported torch, and forks engines, which become children of the supervisor
        └── engine × N         --- a server each, told where in the house it stands

What ended one run is told to the next, which tells it to clients whose sessions were lost. All end with the supervisor,
and none with any other.

addresses     what can be listened on
environment   what the libraries of the children are told
watch         the one thread: descriptors, ends of processes, moments
process       a child: its beats, and why it ended
main          the child that listens at the address
fork_server   the child that forks
engines       the children that are forked
"""

from tserver.supervisor.addresses import PortTaken, reserve
from tserver.supervisor.environment import environment
from tserver.supervisor.main import supervise
from tserver.supervisor.process import GRACE_S

__all__ = ["GRACE_S", "PortTaken", "environment", "reserve", "supervise"]
