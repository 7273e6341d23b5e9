"""The straight story of a boot, from the first mount to the open gate; then what the host asks.

The order is one of time: what takes long (the engine's imports, sshd) is
started as soon as it can be and goes on beside what follows.
"""

import os
import socket
import time
from collections.abc import Sequence
from typing import NoReturn

from vmguest.agent import clock
from vmguest.agent.ports import PortRelay, Request
from vmguest.init import control, disk, mounts, poweroff, processes
from vmguest.init.console import say, uptime_ms
from vmguest.init.engine import PORTS_SOCKET, Engine, Launched
from vmguest.init.loop import Loop
from vmguest.init.sshd import Sshd
from vmguest.protocol import VERSION, Message, ProtocolError, integer, text

_EARLY_MODULES = ("virtio_net",)
# Loaded behind the boot's back: they would be loaded on first use, but then a user waits for it.
_LATE_MODULES = (
    "overlay", "virtio_balloon", "virtio_rng", "veth", "bridge", "br_netfilter",
    "nf_tables", "nft_chain_nat", "nft_ct", "nft_masq", "nft_nat", "nft_fib_inet", "nft_reject_inet",
)  # fmt: skip
_FAILED_LINGER_S = 0.5
_SHUTDOWN_S = 20.0
_LIMITS = {
    "/proc/sys/kernel/panic": "1",
    "/proc/sys/vm/overcommit_memory": "1",
    "/proc/sys/fs/inotify/max_user_instances": "1024",
    "/proc/sys/fs/inotify/max_user_watches": "524288",
    "/proc/sys/kernel/keys/maxkeys": "20000",
    "/proc/sys/net/ipv4/ip_forward": "1",
}


class Init:
    """State of the boot: which identity came, which phases are over."""

    def __init__(self, launched: Launched, started_ms: int) -> None:
        """Take over from `main`, which has launched the first engine."""
        self.loop = Loop(on_signal=lambda _: self.shut_down(_SHUTDOWN_S))
        self.phases: list[tuple[str, int]] = [("init", started_ms)]
        self.engine = Engine(
            self.loop,
            on_ready=self._engine_ready,
            on_hopeless=lambda text: self.fail("engine", text),
            clock=time.monotonic,
        )
        self.engine.take(launched)
        self.sshd = Sshd(self.loop, on_listening=lambda: self._phase("sshd"))
        self.control: control.Control | None = None
        self.ports: PortRelay | None = None
        self.configured = False
        self.ready = False
        self.nonce = ""  # of the host that attached last

    def boot(self) -> None:
        """Run every step that does not wait for another process."""
        self._phase("imports")
        mounts.mount_all()
        self._phase("mounts")
        node = control.find_port()
        self.ports = PortRelay(self.loop, PORTS_SOCKET, ask=self._ask_host)
        port_fd = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.control = control.Control(self.loop, port_fd, self._message)
        self.control.serve()
        self._run(["/usr/sbin/modprobe", "-a", "-q", *_EARLY_MODULES])
        self._phase("modules")
        while not self.configured:
            self.loop.step()
        self._network()
        mounts.enable_controllers()
        for path, value in _LIMITS.items():
            if os.path.exists(path):
                mounts.write(path, value)
        fresh = disk.prepare(disk.find(), self._run)
        self._phase("disk formatted" if fresh else "disk")
        self.engine.open_gate()
        if not os.path.lexists("/run/docker.sock"):
            os.symlink("/run/pyengine/pyengine.sock", "/run/docker.sock")
        self._late_modules()

    def _run(self, argv: Sequence[str]) -> int:
        return processes.run(argv, self.loop)

    def _network(self) -> None:
        # here, so that sshd starts and the engine imports while this takes its tenth of a second
        from vmguest.init import network  # noqa: PLC0415

        network.configure()
        mounts.replace_file("/etc/resolv.conf", f"nameserver {network.NAME_SERVER}\n")
        self._phase("network")

    def shut_down(self, timeout_s: float) -> NoReturn:
        """Power off cleanly."""
        self.engine.stop_restarting()
        self._phase("shutdown")
        poweroff.power_off(self.engine.pid, timeout_s=timeout_s)

    def fail(self, step: str, message: str) -> NoReturn:
        """Tell the host why there is no engine, then power off."""
        say(f"{step}: {message}")
        self._tell("failed", step=step, message=message)
        time.sleep(_FAILED_LINGER_S)  # the host reads it before its end of the port goes
        self.engine.stop_restarting()
        poweroff.power_off(self.engine.pid, timeout_s=0)

    @property
    def step(self) -> str:
        """The last phase that was reached."""
        return self.phases[-1][0] if self.phases else "start"

    def _late_modules(self) -> None:
        try:
            processes.spawn(["/usr/sbin/modprobe", "-a", "-q", *_LATE_MODULES])
        except OSError as err:
            say(f"modprobe: {err.strerror}")

    def _phase(self, name: str) -> None:
        at_ms = uptime_ms()
        self.phases.append((name, at_ms))
        say(name)
        self._tell("phase", name=name, at_ms=at_ms)

    def _engine_ready(self) -> None:
        if not self.ready:
            self.ready = True
            self._phase("engine")
        self._send_ready()

    def _send_ready(self) -> None:
        self._tell("ready", kernel=os.uname().release, phases=self.phases)

    def _tell(self, kind: str, **fields: object) -> None:
        if self.control is not None:
            self.control.send(kind, **fields)

    def _message(self, message: Message) -> None:
        """Do what the host asks; what is not understood is said on the console and left."""
        try:
            self._dispatch(message)
        except (ProtocolError, OSError, ValueError) as err:
            say(f"control: {message['type']}: {err}")

    def _dispatch(self, message: Message) -> None:
        match message["type"]:
            case "attach":
                self._attached(text(message, "nonce"))
            case "configure":
                self._configure(message)
            case "ping":
                self._ping(integer(message, "time_ns"))
            case "ports" if self.ports is not None:
                self.ports.answer(message)
            case "shutdown":
                self.shut_down(float(integer(message, "timeout_s")))

    def _attached(self, nonce: str) -> None:
        """Tell a host everything from the start; the same host asks again when it heard nothing."""
        self._tell("hello", nonce=nonce, version=VERSION, configured=self.configured)
        for name, at_ms in self.phases:
            self._tell("phase", name=name, at_ms=at_ms)
        if self.ready:
            self._send_ready()
        if self.ports is not None:
            if nonce != self.nonce:
                self.ports.host_lost()
            self.ports.renew()
        self.nonce = nonce

    def _configure(self, message: Message) -> None:
        if self.configured:
            return
        clock.follow(integer(message, "time_ns"), tolerance_ns=0)
        hostname = text(message, "hostname")
        socket.sethostname(hostname)
        mounts.replace_file("/etc/hostname", f"{hostname}\n")
        mounts.replace_file("/etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {hostname}\n")
        self.sshd.start(text(message, "ssh_host_key"), text(message, "ssh_authorized_key"))
        self.configured = True
        self._phase("configured")

    def _ping(self, time_ns: int) -> None:
        self._tell("pong", stepped=clock.follow(time_ns), time_ns=time.time_ns())

    def _ask_host(self, number: int, request: Request) -> bool:
        if self.control is None or not self.control.attached:
            return False
        self.control.send("ports", id=number, request=request)
        return True


def run(launched: Launched, started_ms: int) -> NoReturn:
    """Boot, serve, power off; whatever happens, the disk is unmounted and the host told why."""
    init = Init(launched, started_ms)
    try:
        init.boot()
        init.loop.run()
    except (OSError, disk.DiskError) as err:
        reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
        where = f"{err.filename}: " if isinstance(err, OSError) and err.filename else ""
        init.fail(f"the step after {init.step}", f"{where}{reason}")
    except Exception as err:  # noqa: BLE001 (PID 1 may not end: the kernel would panic)
        import traceback  # noqa: PLC0415 (never on a boot that works)

        say(traceback.format_exc())
        init.fail(f"the step after {init.step}", f"internal error: {type(err).__name__}: {err}")
    raise SystemExit
