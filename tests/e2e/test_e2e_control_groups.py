"""cgroup2 for real, in the machine: limits, devices by eBPF, freezing, updates, events."""

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest

from tests.support.home import Home, Result

MIB = 1 << 20
_OCI = "env PYTHONPATH=/usr/lib/pyengine python3 -m engine.runtime.entry --root /run/oci-test"
_PLACES = ("bin", "proc", "dev", "sys")
_GROUP = "/sys/fs/cgroup/oci-test"


class Guest:
    """`pyengine-oci` in the machine, with bundles of its busybox."""

    def __init__(self, machine: Home) -> None:
        self.machine = machine
        self.base = PurePosixPath("/run/oci-bundles")

    def shell(self, script: str) -> Result:
        return self.machine.run("machine", "ssh", "default", "--", script)

    def ok(self, script: str) -> str:
        result = self.shell(script)
        assert result.code == 0, result
        return result.out.strip()

    def oci(self, *words: str) -> Result:
        return self.shell(f"{_OCI} {shlex.join(words)} < /dev/null")

    def start(self, name: str, *args: str, **how: Any) -> Result:
        """Run a bundle; its output goes to a file, as ssh waits for who holds it."""
        bundle = self.bundle(name, *args, **how)
        run = f"{_OCI} run -d --bundle {bundle} {name} < /dev/null > {bundle}/out 2>&1"
        return self.shell(f"{run}; status=$?; cat {bundle}/out; exit $status")

    def bundle(
        self,
        name: str,
        *args: str,
        resources: dict[str, Any] | None = None,
        capabilities: tuple[str, ...] = (),
        edit: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> PurePosixPath:
        """Write a bundle and return its place."""
        bundle = self.base / name
        rootfs = bundle / "rootfs"
        config: dict[str, Any] = {
            "ociVersion": "1.2.0",
            "process": {
                "cwd": "/",
                "args": args,
                "env": ["PATH=/bin"],
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
            ],
            "linux": {
                "namespaces": [
                    {"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network", "cgroup")
                ],
                "cgroupsPath": f"/oci-test/{name}",
                "resources": resources or {},
            },
        }
        edit(config)
        tools = f"for tool in sh cat mkdir mknod head sleep dd; do ln -sf busybox {rootfs}/bin/$tool; done"
        self.ok(
            f"mkdir -p {' '.join(str(rootfs / each) for each in _PLACES)} "
            f"&& cp $(which busybox) {rootfs}/bin/ && {tools} "
            f"&& printf %s {shlex.quote(json.dumps(config))} > {bundle}/config.json"
        )
        return bundle

    def file(self, name: str, file: str) -> str:
        return self.ok(f"cat {_GROUP}/{name}/{file}")

    def ended(self, name: str) -> str:
        """Return what a container printed, once it has ended."""
        pid = json.loads(self.ok(f"{_OCI} state {name}"))["pid"]
        wait = f"import os, select; select.select([os.pidfd_open({pid})], [], [], 60)" if pid else ""
        self.ok(f"python3 -c {shlex.quote(wait)}; true")
        return self.ok(f"cat {self.base}/{name}/out")


@pytest.fixture
def guest(machine: Home) -> Iterator[Guest]:
    made = Guest(machine)
    yield made
    made.ok(f"for name in $({_OCI} list -q); do {_OCI} delete --force $name; done")
    assert made.ok(f"find {_GROUP} -mindepth 1 -type d; rmdir {_GROUP}; rm -r {made.base}") == ""


def test_limits_of_a_bundle_arrive_converted(guest: Guest) -> None:
    resources = {
        "memory": {"limit": 64 * MIB, "swap": 128 * MIB, "reservation": 32 * MIB, "swappiness": 10},
        "cpu": {"shares": 512, "quota": 20000, "period": 50000, "burst": 5000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 32},
        "blockIO": {"throttleReadBpsDevice": [{"major": 254, "minor": 16, "rate": MIB}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}],
        "unified": {"memory.high": str(48 * MIB), "cgroup.max.depth": "3"},
    }

    done = guest.start("limits", "sleep", "1000", resources=resources)

    assert done.code == 0, done
    assert done.out.strip() == (
        "pyengine-oci: warning: memory.swappiness: ignored, control groups v2 do not have it"
    )
    wanted = {
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(64 * MIB),
        "memory.low": str(32 * MIB),
        "memory.high": str(48 * MIB),
        "cpu.weight": "20",
        "cpu.max": "20000 50000",
        "cpu.max.burst": "5000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "pids.max": "32",
        "io.max": f"254:16 rbps={MIB} wbps=max riops=max wiops=max",
        "hugetlb.2MB.max": str(4 * MIB),
        "cgroup.max.depth": "3",
    }
    assert {file: guest.file("limits", file) for file in wanted} == wanted


def test_an_idle_group_and_its_update(guest: Guest) -> None:
    guest.start("idle", "sleep", "1000", resources={"cpu": {"idle": 1}, "memory": {"limit": 64 * MIB}})
    assert guest.file("idle", "cpu.idle") == "1"

    assert guest.oci("update", "--cpu-idle", "0", "--memory", "32m", "--pids-limit", "9", "idle").code == 0
    assert [guest.file("idle", file) for file in ("cpu.idle", "memory.max", "pids.max")] == [
        "0",
        str(32 * MIB),
        "9",
    ]
    guest.ok(f'echo \'{{"memory": {{"limit": 4096, "checkBeforeUpdate": true}}}}\' > {guest.base}/r.json')
    refused = guest.oci("update", "-r", f"{guest.base}/r.json", "idle")
    assert refused.code == 1
    assert "memory limit 4096 is below what is in use" in refused.err
    assert guest.file("idle", "memory.max") == str(32 * MIB)


@pytest.mark.parametrize(
    ("resources", "reason"),
    [
        ({"network": {"classID": 5}}, "network.classID"),
        ({"cpu": {"realtimeRuntime": 1000}}, "cpu.realtimePeriod"),
        ({"memory": {"swap": MIB}}, "memory.swap without limit"),
        (
            {"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]},
            "hugetlb.3MB.max: this kernel does not have it",
        ),
        ({"unified": {"cgroup.procs": "1"}}, "cgroup.procs"),
        ({"unified": {"memory.nothing": "1"}}, "memory.nothing: this kernel does not have it"),
    ],
)
def test_what_cgroup2_does_not_have_is_refused_by_name(
    guest: Guest, resources: dict[str, Any], reason: str
) -> None:
    done = guest.start("refused", "sleep", "1000", resources=resources)

    assert done.code == 1
    assert reason in done.out
    assert done.out.count("\n") == 1
    assert guest.ok(f"mkdir -p {_GROUP}; ls -d {_GROUP}/*/ 2>/dev/null; true") == ""


def test_devices_are_refused_by_the_program_but_for_those_allowed(guest: Guest) -> None:
    look = (
        "cd /dev; mknod k b 254 16; mknod l b 254 0; mknod n c 1 3; "
        "head -c 1 k > n && echo read; (: > k) || echo no write; head -c 1 l > n || echo no read"
    )
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "b", "major": 254, "minor": 16, "access": "r"},
    ]

    guest.start("devices", "sh", "-c", look, resources={"devices": rules}, capabilities=("CAP_MKNOD",))

    out = guest.ended("devices").splitlines()
    assert [line for line in out if ":" not in line] == ["read", "no write", "no read"]
    assert sum("Operation not permitted" in line for line in out) == 2


def test_pids_and_memory_hold_and_a_kill_for_want_of_memory_is_told(guest: Guest) -> None:
    many = "for n in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo more"
    guest.start("pids", "sh", "-c", many, resources={"pids": {"limit": 4}})
    assert "more" not in guest.ended("pids")

    eat = "read _ < /go; exec dd if=/dev/zero of=/dev/null bs=64M count=1"
    limits = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    go, line = guest.base / "eat/rootfs/go", guest.base / "line"
    guest.ok(f"mkdir -p {go.parent}; mkfifo {go} {line}")
    guest.start("eat", "sh", "-c", eat, resources=limits)
    told = guest.ok(
        f"{_OCI} events --interval 1s eat < /dev/null > {line} & "
        f'{{ read -r first; echo "$first"; echo > {go}; cat; }} < {line}'
    )
    kinds = [json.loads(line)["type"] for line in told.splitlines()]
    assert kinds[0] == "stats"
    assert kinds[-1] == "oom"


_ROOT_INSIDE = 100000


def test_the_root_of_a_user_namespace_divides_its_own_group(guest: Guest) -> None:
    def separate(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "user"})
        ranges = [{"containerID": 0, "hostID": _ROOT_INSIDE, "size": 1000}]
        config["linux"] |= {"uidMappings": ranges, "gidMappings": ranges}
        config["mounts"][-1]["options"] = []

    divide = (
        "cd /sys/fs/cgroup && mkdir inner && echo 0 > inner/cgroup.procs"
        " && echo +pids > cgroup.subtree_control && echo 7 > inner/pids.max && cat inner/pids.max"
        "; (echo 9 > pids.max) || echo kept; exec sleep 1000"
    )
    done = guest.start("divided", "sh", "-c", divide, resources={"pids": {"limit": 20}}, edit=separate)
    assert done.code == 0, done

    guest.ok(f"until grep -q kept {guest.base}/divided/out; do :; done")
    assert guest.ok(f"cat {guest.base}/divided/out").splitlines()[-1] == "kept"
    assert "7" in guest.ok(f"cat {guest.base}/divided/out").splitlines()
    assert guest.file("divided", "pids.max") == "20"
    own = guest.ok(f"cd {_GROUP}/divided && for file in . *; do stat -c '%n %u' $file; done").splitlines()
    given = {name for name, owner in (line.split() for line in own) if owner == str(_ROOT_INSIDE)}
    asked = set(guest.ok("cat /sys/kernel/cgroup/delegate").split()) & {line.split()[0] for line in own}
    assert given == {".", "inner"} | asked
    done = guest.oci("exec", "divided", "cat", "/proc/self/cgroup")  # the divided group itself takes nobody
    assert (done.out, done.err) == ("0::/inner\n", "")
    assert guest.oci("delete", "--force", "divided").code == 0


def test_a_group_that_the_container_cannot_write_stays_roots(guest: Guest) -> None:
    guest.start("kept", "sleep", "1000")

    assert guest.ok(f"stat -c %u {_GROUP}/kept {_GROUP}/kept/cgroup.procs").split() == ["0", "0"]


_AS_USER = """
import os, sys
group = os.open(sys.argv[1] + "/cgroup.procs", os.O_WRONLY)
os.write(group, b"0")
os.setgroups([])
os.setresgid(1000, 1000, 1000)
os.setresuid(1000, 1000, 1000)
os.environ["XDG_RUNTIME_DIR"], os.environ["PYTHONPATH"] = sys.argv[2], "/usr/lib/pyengine"
os.execvp("python3", ["python3", "-m", "engine.runtime.entry", *sys.argv[3:]])
"""


_AS_ROOT_INSIDE = """
import os, sys
os.environ["XDG_RUNTIME_DIR"], os.environ["USER"] = sys.argv[2], "somebody"
child = os.fork()
if child == 0:
    group = os.open(sys.argv[1] + "/cgroup.procs", os.O_WRONLY)
    os.write(group, b"0")
    os.setgroups([])
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    os.execvp("python3", ["python3", "-c", sys.argv[3], sys.argv[4]])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
_UNSHARED = """
import os, sys
sys.path.insert(0, "/usr/lib/pyengine")
from engine.kernel.process import CloneFlag, unshare
unshare(CloneFlag.NEWUSER | CloneFlag.NEWNS)
for name, text in (("setgroups", "deny"), ("gid_map", "0 1000 1"), ("uid_map", "0 1000 1")):
    with open("/proc/self/" + name, "w") as file:
        file.write(text)
os.execvp("sh", ["sh", "-c", sys.argv[1]])
"""


class User:
    """An unprivileged user of the machine, whose session is in a group that is delegated to it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.group = "/sys/fs/cgroup/oci-user"
        self.home = PurePosixPath("/run/oci-user")
        guest.ok(
            f"mkdir -p {self.home} {self.group}/session && chown 1000:1000 {self.home}"
            f" && for file in . $(cat /sys/kernel/cgroup/delegate); do"
            f" test ! -e {self.group}/$file || chown 1000:1000 {self.group}/$file; done"
            " && echo '+memory +pids' > /sys/fs/cgroup/cgroup.subtree_control"
            f" && echo {shlex.quote(_AS_USER)} > {self.home}/as_user.py"
            f" && echo {shlex.quote(_AS_ROOT_INSIDE)} > {self.home}/as_root_inside.py"
        )

    def oci(self, *words: str, output: str = "") -> Result:
        """Run `pyengine-oci` as this user, whose session is a group below the one that is delegated."""
        places = f"{self.group}/session {self.home}"
        into = f"> {output} 2>&1" if output else ""
        return self.guest.shell(
            f"python3 {self.home}/as_user.py {places} {shlex.join(words)} < /dev/null {into}"
        )

    def shell_inside(self, script: str) -> Result:
        """Run a script as root of a user namespace of this user's, as rootless podman runs its runtime."""
        places = f"{self.group}/session {self.home}"
        return self.guest.shell(
            f"python3 {self.home}/as_root_inside.py {places}"
            f" {shlex.quote(_UNSHARED)} {shlex.quote(script)} < /dev/null"
        )

    def close(self) -> None:
        self.oci("delete", "--force", "users")
        assert self.guest.ok(f"ls -d {self.group}/*/") == f"{self.group}/session/"
        self.guest.ok(f"rmdir {self.group}/session {self.group} && rm -r {self.home}")


@pytest.fixture
def user(guest: Guest) -> Iterator[User]:
    made = User(guest)
    yield made
    made.close()


def test_a_user_limits_and_stops_containers_where_a_group_is_delegated(guest: Guest, user: User) -> None:
    def mine(config: dict[str, Any]) -> None:
        config["process"]["capabilities"] = {}
        spaces = [space for space in config["linux"]["namespaces"] if space["type"] != "network"]
        config["linux"]["namespaces"] = [*spaces, {"type": "user"}]
        ids = [{"containerID": 0, "hostID": 1000, "size": 1}]
        config["linux"] |= {"uidMappings": ids, "gidMappings": ids}
        del config["linux"]["cgroupsPath"]
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] in ("proc", "tmpfs")]

    limits = {"pids": {"limit": 20}, "memory": {"limit": 64 * MIB}}
    bundle = guest.bundle("users", "sleep", "1000", resources=limits, edit=mine)
    guest.ok(f"chown -R 1000:1000 {bundle}")
    out = f"{bundle}/out"

    done = user.oci("run", "-d", "--bundle", str(bundle), "users", output=out)

    assert (done.code, guest.ok(f"cat {out}")) == (0, "")
    group = f"{user.group}/pyengine-users"
    assert guest.ok(f"cat {group}/pids.max {group}/memory.max {group}/pids.current").split() == [
        "20", str(64 * MIB), "1",
    ]  # fmt: skip
    assert user.oci("pause", "users").code == 0
    assert "frozen 1" in guest.ok(f"cat {group}/cgroup.events")
    assert user.oci("resume", "users").code == 0
    assert user.oci("exec", "users", "cat", "/proc/self/cgroup").out == "0::/\n"
    assert user.oci("update", "--pids-limit", "9", "users").code == 0
    assert guest.ok(f"cat {group}/pids.max") == "9"
    assert user.oci("kill", "--all", "users", "KILL").code == 0


def test_the_root_of_a_user_namespace_is_this_user_and_no_other(guest: Guest, user: User) -> None:
    def mine(config: dict[str, Any]) -> None:
        del config["linux"]["cgroupsPath"]
        config["process"]["capabilities"] = {}

    bundle = guest.bundle("users", "sleep", "1000", resources={"pids": {"limit": 20}}, edit=mine)
    guest.ok(f"chown -R 1000:1000 {bundle}")
    group = f"{user.group}/pyengine-users"
    oci = "env PYTHONPATH=/usr/lib/pyengine python3 -m engine.runtime.entry"

    done = user.shell_inside(
        f"{oci} run -d --bundle {bundle} users < /dev/null > {bundle}/out 2>&1 || cat {bundle}/out;"
        f" cat {group}/pids.max; stat -c %u {group}; ls {user.home}/pyengine-oci;"
        f" {oci} exec users cat /proc/self/cgroup; {oci} pause users; grep frozen {group}/cgroup.events;"
        f" {oci} delete --force users && ls {user.home}/pyengine-oci"
    )

    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == ["20", "0", "users", "0::/", "frozen 1"]


def test_what_is_not_delegated_cannot_be_limited_and_says_so(guest: Guest, user: User) -> None:
    def mine(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = [{"type": "user"}, {"type": "mount"}, {"type": "pid"}]
        ids = [{"containerID": 0, "hostID": 1000, "size": 1}]
        config["linux"] |= {"uidMappings": ids, "gidMappings": ids}
        config["linux"]["cgroupsPath"] = "/elsewhere/users"

    bundle = guest.bundle("users", "sleep", "1000", edit=mine)
    guest.ok(f"chown -R 1000:1000 {bundle}")

    done = user.oci("run", "-d", "--bundle", str(bundle), "users")

    assert done.code == 1
    assert done.err.endswith("pyengine-oci: make control group /elsewhere/users: permission denied\n")


def test_a_frozen_group_stands_still_and_can_be_killed(guest: Guest) -> None:
    guest.start("froze", "sh", "-c", "while :; do :; done", resources={})

    assert guest.oci("pause", "froze").code == 0
    assert guest.file("froze", "cgroup.freeze") == "1"
    assert "frozen 1" in guest.file("froze", "cgroup.events")
    used = guest.file("froze", "cpu.stat").splitlines()[0]
    assert json.loads(guest.oci("state", "froze").out)["status"] == "paused"
    assert guest.file("froze", "cpu.stat").splitlines()[0] == used
    assert guest.oci("resume", "froze").code == 0
    assert "frozen 0" in guest.file("froze", "cgroup.events")

    guest.oci("pause", "froze")
    assert guest.oci("delete", "--force", "froze").code == 0


def test_statistics_speak_runcs_words(guest: Guest) -> None:
    guest.start("stats", "sleep", "1000", resources={"memory": {"limit": 64 * MIB}, "pids": {"limit": 7}})

    data = json.loads(guest.oci("events", "--stats", "stats").out)["data"]

    assert data["pids"] == {"current": 1, "limit": 7}
    assert data["memory"]["usage"]["limit"] == 64 * MIB
    assert data["memory"]["usage"]["usage"] > 0
    assert data["cpu"]["usage"]["total"] > 0


def test_the_flags_of_run_arrive(machine: Home) -> None:
    files = (
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "cpu.max",
        "cpu.weight",
        "pids.max",
        "cpuset.cpus",
    )
    show = f"cd /sys/fs/cgroup; cat {' '.join(files)}"

    flags = (
        "--memory 64m --memory-swap 96m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --pids-limit 50 "
        "--cpuset-cpus 0"
    )

    shown = machine.output("run", "--rm", *flags.split(), "busybox", "sh", "-c", show)

    assert shown.splitlines() == [
        str(64 * MIB), str(32 * MIB), str(32 * MIB), "50000 100000", "20", "50", "0",
    ]  # fmt: skip


def test_a_device_of_run_is_there_with_the_access_asked_for(machine: Home) -> None:
    look = "head -c 1 /dev/x | wc -c; (: > /dev/x); mknod /tmp/k b 254 0; head -c 1 /tmp/k"

    done = machine.run(
        "run", "--rm", "--cap-add", "MKNOD", "--device", "/dev/vdb:/dev/x:r", "busybox", "sh", "-c", look
    )

    assert done.out == "1\n"
    assert done.err.count("Operation not permitted") == 2
