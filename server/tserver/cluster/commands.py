"""`tserver cluster`: have engines on the hosts of a Ray cluster, see them, drain a host, and end them.

Knows the command line; what Ray is asked for is in actors.py, which is imported once Ray is there.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from tserver import __version__
from tserver.cluster.connection import ClusterError, connect
from tserver.cluster.spec import DIRECTORY, NAMESPACE, Spec
from tserver.engines.house import new_key

if TYPE_CHECKING:
    from tserver.config import Config

_POLL_S = 0.2
# How much longer than --drain-s an engine may take to end.
_END_S = 15.0
# How long its models may take to be on other engines.
_MODELS_S = 30.0
_DRAINED = "its host is drained"


def group(options: Callable[[Any], Any], checked: Callable[[dict[str, Any]], Config]) -> click.Group:
    """The commands. `options` gives a command those of `tserver serve`, and `checked` makes of them a Config."""

    @click.group()
    def cluster() -> None:
        """Engines on many hosts, as actors of a Ray cluster, with a front on each host."""

    @cluster.command()
    @_ray_address
    @click.option("--engines-per-gpu", type=click.IntRange(1), default=1, show_default=True, help="Engines of one GPU.")
    @click.option("--cpus-per-engine", type=click.FloatRange(0.0), default=1.0, show_default=True, help="CPUs of each.")
    @click.option("--wait-s", type=float, default=0.0, help="How long Ray may take until it can be reached.")
    @click.option("--start-s", type=float, default=180.0, show_default=True, help="How long engines may take to start.")
    @options
    def up(
        ray_address: str, engines_per_gpu: int, cpus_per_engine: float, wait_s: float, start_s: float, **settings: Any
    ) -> None:
        """Have a front on each host, and --engines engines on the CPU, or as many as there are GPUs.

        Said again, it has those started that are missing. Prints `listening on ADDRESS` for each front when all serve.
        """
        config = checked(settings)
        if config.isolation != "shared":
            raise click.UsageError("--isolation: the engines of a cluster are shared; one host can have others")
        if engines_per_gpu > 1 and config.devices_per_engine > 1:
            raise click.UsageError("--engines-per-gpu has engines share a GPU, and --devices-per-engine hold several")
        if config.oip_listen:
            raise click.UsageError("--oip-listen: the fronts of a cluster do not speak the Open Inference Protocol")
        with _told():
            ray = connect(ray_address, NAMESPACE, wait_s)
            spec = Spec(config, new_key(), __version__, engines_per_gpu, cpus_per_engine)
            _up(ray, spec, start_s)
        if ray_address == "local":
            _until_told_to_stop()
            _down(ray)

    @cluster.command()
    @_ray_address
    def status(ray_address: str) -> None:
        """Print the hosts, their fronts and engines."""
        with _told():
            ray = connect(ray_address, NAMESPACE)
            told = ray.get(_directory(ray).status.remote())
        for node in told["nodes"]:
            state = "draining" if node["id"] in told["draining"] else "serving"
            front = told["fronts"].get(node["id"], "no front")
            click.echo(f"{node['ip']}  {node['id']}  {state}  {front}")
            for engine in told["engines"]:
                if engine["node"] == node["id"]:
                    click.echo(f"    engine {engine['engine']}  {engine['device']}  {engine['endpoint']}")

    @cluster.command()
    @_ray_address
    @click.argument("node")
    def drain(ray_address: str, node: str) -> None:
        """Have the host NODE (its address, name or id in Ray) take no new sessions, end its engines in their own time,
        and then its front.
        """
        with _told():
            ray = connect(ray_address, NAMESPACE)
            _drain(ray, node)

    @cluster.command()
    @_ray_address
    def down(ray_address: str) -> None:
        """End all engines in their own time, and all fronts. Ray goes on."""
        with _told():
            _down(connect(ray_address, NAMESPACE))

    return cluster


def _ray_address(function: Any) -> Any:
    return click.option(
        "--ray-address",
        default="auto",
        show_default=True,
        envvar="RAY_ADDRESS",
        help="HOST:PORT of the Ray cluster; auto is that of this host; local starts one that ends with this command.",
    )(function)


def _up(ray: Any, spec: Spec, start_s: float) -> None:
    from tserver.cluster import actors

    if spec.host("") and len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}) > 1:
        raise ClusterError(
            f"--listen {spec.config.listen} is reached from its own host alone, and the cluster has several hosts; "
            "give --listen 0.0.0.0:PORT, with TLS or --insecure"
        )
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if spec.config.engines:
        wanted = spec.config.engines
        on_gpus = gpus > 0 and spec.config.device != "cpu"
    else:
        wanted, on_gpus = spec.engines_on(gpus), True
    if not wanted:
        raise ClusterError("the cluster has no GPU; say how many engines there are to be on its CPUs: --engines N")
    spec = spec if on_gpus else replace(spec, engines_per_gpu=0)
    directory = actors.have_directory(spec.message())
    # Of the directory that was there already, if one was: its key is the one.
    message = ray.get(directory.spec.remote())
    avoid = list(ray.get(directory.status.remote())["draining"])
    for index in range(wanted):
        actors.have_engine(str(index), message, avoid)
    names = {str(index) for index in range(wanted)}
    until = time.monotonic() + start_s
    while True:
        told = ray.get(directory.status.remote())
        missing = names - {engine["engine"] for engine in told["engines"]}
        unfronted = [node["ip"] for node in told["nodes"] if node["id"] not in {*told["fronts"], *told["draining"]}]
        if told["nodes"] and not missing and not unfronted:
            break
        if time.monotonic() > until:
            what = f"engines {', '.join(sorted(missing))}" if missing else f"the fronts of {', '.join(unfronted)}"
            raise ClusterError(
                f"{what} do not serve after {start_s:.0f} s; `ray status` says whether there is room for them, and the "
                "logs of Ray what they say"
            )
        time.sleep(_POLL_S)
    for address in sorted(told["fronts"].values()):
        click.echo(f"listening on {address}")


def _drain(ray: Any, wish: str) -> None:
    directory = _directory(ray)
    told = ray.get(directory.status.remote())
    found = [node["id"] for node in told["nodes"] if wish in node.values()]
    if len(found) != 1:
        known = ", ".join(f"{node['ip']} ({node['id']})" for node in told["nodes"])
        raise ClusterError(f"{'no host' if not found else 'more than one host'} is {wish!r}; there are {known}")
    (node,) = found
    drain_s = Spec.of(ray.get(directory.spec.remote())).config.drain_s
    there = ray.get(directory.drain.remote(node, _DRAINED))
    until = time.monotonic() + _MODELS_S
    while not set(there) <= set(ray.get(directory.status.remote())["left"]) and time.monotonic() < until:
        time.sleep(_POLL_S)
    _end(ray, [f"engine-{engine}" for engine in there], _DRAINED, drain_s)
    _end(ray, [f"front-{node}"], _DRAINED, drain_s)
    ray.get(directory.forget.remote(node))
    click.echo(f"{wish} is drained: {len(there)} engines have ended")


def _down(ray: Any) -> None:
    directory = _directory(ray)
    told = ray.get(directory.status.remote())
    drain_s = Spec.of(ray.get(directory.spec.remote())).config.drain_s
    ray.get(directory.stop.remote())
    names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True) if one["namespace"] == NAMESPACE]
    _end(ray, [name for name in names if name.startswith("engine-")], "the cluster is stopping", drain_s)
    _end(ray, [name for name in names if name.startswith("front-")], "the cluster is stopping", drain_s)
    ray.kill(directory, no_restart=True)
    click.echo(f"{len(told['engines'])} engines have ended")


def _end(ray: Any, names: list[str], cause: str, drain_s: float) -> None:
    """Stop actors, all at once, and wait until they are gone."""
    actors = []
    for name in names:
        with contextlib.suppress(ValueError):
            actors.append(ray.get_actor(name, NAMESPACE))
    stopping = [actor.stop.remote(cause) for actor in actors]
    if stopping:
        ray.wait(stopping, num_returns=len(stopping), timeout=drain_s + _END_S)
    for actor in actors:
        ray.kill(actor, no_restart=True)


def _directory(ray: Any) -> Any:
    try:
        return ray.get_actor(DIRECTORY, NAMESPACE)
    except ValueError:
        raise ClusterError("no cluster is up there; `tserver cluster up` starts one") from None


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        raise click.ClickException(str(error)) from error


def _until_told_to_stop() -> None:
    stop = [signal.SIGTERM, signal.SIGINT]
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    signal.sigwait(stop)
