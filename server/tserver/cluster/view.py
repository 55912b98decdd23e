"""What a front's host knows of a cluster: the news of the directory, also over the end of one and its successor.

A new directory knows no engine until they have said that they serve; those that do not within a while are gone.
Pure; time is given.
"""

from __future__ import annotations

from tserver.cluster.known import SILENT_S, Message, News

_SETTLED_S = 2 * SILENT_S
# How many ended runs are remembered.
_REMEMBERED = 4096


class View:
    """All that is known, and what of it is new to the front."""

    def __init__(self) -> None:
        self.run = ""
        self.version = self.told_version = 0
        # The front that keeps the models: its node, and where others reach it.
        self.leader = ""
        self.leader_at = ""
        self._serving: dict[str, Message] = {}
        self._ended: dict[str, Message] = {}
        self._draining: dict[str, Message] = {}
        # Engines that the directory before this one knew, and this one does not yet; and since when.
        self._unheard: dict[str, Message] = {}
        self._since = 0.0

    def take(self, news: News, now: float) -> list[Message]:
        """Note what is new; what the front is to be told."""
        if news.is_all and news.run != self.run:
            self._unheard, self._since = dict(self._serving), now
        self.run, self.version, self.told_version = news.run, news.version, news.told_version
        told = [message for message in news.messages if self._note(message)]
        if self._unheard and now - self._since > _SETTLED_S:
            for serving in self._unheard.values():
                ended = {"is": "ended", "engine": serving["engine"], "boot_id": serving["boot_id"]}
                ended |= {"cause": "its host is gone", "comes_again": True}
                if self._note(ended):
                    told.append(ended)
            self._unheard = {}
        return told + news.told

    def all(self) -> list[Message]:
        """What a front is told that begins now."""
        return [*self._ended.values(), *self._serving.values(), *self._draining.values()]

    def _note(self, message: Message) -> bool:
        """Note it; whether it is new to the front."""
        if message["is"] == "leads":
            self.leader, self.leader_at = message["node"], message["internal"]
            return False
        engine = message["engine"]
        if message["is"] == "serving":
            self._unheard.pop(engine, None)
            is_new = self._serving.get(engine) != message
            if is_new:
                self._draining.pop(engine, None)
            self._serving[engine] = message
            self._ended.pop(message["boot_id"], None)
            return is_new
        if message["is"] == "draining":
            is_new = self._draining.get(engine) != message
            self._draining[engine] = message
            return is_new
        boot_id = message["boot_id"]
        serving = self._serving.get(engine)
        if serving is not None and serving["boot_id"] == boot_id:
            del self._serving[engine]
            self._draining.pop(engine, None)
        if not boot_id:
            return True
        is_new = boot_id not in self._ended
        self._ended[boot_id] = message
        while len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]
        return is_new
