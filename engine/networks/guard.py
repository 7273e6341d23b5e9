"""Notice when somebody removes our rules (`nft flush ruleset`, a firewall that reloads), at once.

The kernel tells a multicast group of every change; only removals from our
table that were not made by our own socket matter.
"""

import asyncio
import contextlib
from collections.abc import Callable

from engine.kernel import nftables
from engine.kernel.netlink import NETLINK_NETFILTER, NetlinkSocket

_SETTLE_S = 0.1  # a flush is many messages, and what flushes may be about to load rules of its own


class Guard:
    """Calls `restore` soon after our table was damaged."""

    def __init__(self, restore: Callable[[], None]) -> None:
        self._restore = restore
        self._socket: NetlinkSocket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def open(self, table: str, own_port: int) -> None:
        """Watch `table`; changes made by the netlink socket `own_port` are ours."""
        self._table, self._own_port = table, own_port
        self._socket = NetlinkSocket(NETLINK_NETFILTER, groups=[nftables.NFNLGRP_NFTABLES])
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._look)

    def close(self) -> None:
        """Stop watching; harmless twice."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _look(self) -> None:
        if self._socket is None:
            return
        try:
            messages = self._socket.receive()
        except OSError:  # ENOBUFS: some were lost; better restore once too often
            damaged = True
        else:
            damaged = any(
                message.port != self._own_port and nftables.removed_from(message) == self._table
                for message in messages
            )
        if damaged and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SETTLE_S, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._restore()
