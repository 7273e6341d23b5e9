"""The words in which an engine inside a machine asks its host for a port.

A port that a container publishes must also be free on the host, and the
client must learn of a clash when it starts the container, not later. So the
engine asks before it answers. One JSON object a line, over a unix socket in
the guest; the guest agent relays it to the host agent and back:

    engine                      guest agent                 host agent
      | {"op":"publish",...}  ->  |  over the control channel -> |  binds
      | {"ok":true,"host_port":N} <------------------------------|
      | {"op":"unpublish",...} -> |  ...                      -> |  closes
"""

import msgspec


class PortRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Publish or withdraw one port.

    `host_ip` is what the user asked for; empty means the host's default
    (127.0.0.1 and ::1). The connection that the host accepts is made to
    `guest_port` on the guest's loopback.
    """

    op: str  # "publish" or "unpublish"
    container: str  # id, for messages and for withdrawing all of one container
    proto: str  # "tcp" or "udp"
    host_ip: str
    host_port: int
    guest_port: int


class PortReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The host's answer; `error` is one line for the user when not `ok`."""

    ok: bool
    host_port: int = 0
    error: str = ""
