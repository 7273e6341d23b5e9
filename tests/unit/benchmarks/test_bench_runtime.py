import pytest

from benchmarks.scenarios.runtime import goals, lines
from benchmarks.stats import Series
from benchmarks.stopwatch import laps
from benchmarks.targets.bundles import portable
from engine.spec.runtime import (
    DeviceRule,
    Linux,
    Mount,
    Namespace,
    NamespaceType,
    Pids,
    Process,
    Resources,
    Rlimit,
    Root,
    Seccomp,
    Spec,
)

SECCOMP = Seccomp(default_action="SCMP_ACT_ERRNO")
DEVICES = (DeviceRule(allow=False),)
ENGINE = Spec(
    oci_version="1.2.0",
    process=Process(
        cwd="/",
        args=("sleep",),
        rlimits=(Rlimit(type="RLIMIT_NOFILE", hard=1, soft=1),),
        oom_score_adj=-5,
        env=("A=b",),
    ),
    root=Root(path="/engine/root", readonly=True),
    mounts=(
        Mount(destination="/proc", type="proc"),
        Mount(destination="/etc/hosts", type="bind", source="/x"),
    ),
    linux=Linux(
        namespaces=(Namespace(type=NamespaceType.NETWORK, path="/run/netns/x"),),
        resources=Resources(devices=DEVICES, pids=Pids(limit=7)),
        seccomp=SECCOMP,
        masked_paths=("/proc/kcore",),
    ),
)


def test_a_bundle_has_the_engines_confinement_and_nothing_of_its_files() -> None:
    made = portable(ENGINE, args=("/bin/true",), rootfs="/r", cgroup="/bench/x")

    assert made.process == Process(cwd="/", args=("/bin/true",), env=("A=b",))
    assert made.root == Root(path="/r")
    assert [mount.destination for mount in made.mounts] == ["/proc"]
    assert {space.type for space in made.linux.namespaces} == set(NamespaceType) - {
        NamespaceType.USER,
        NamespaceType.TIME,
    }
    assert not any(space.path for space in made.linux.namespaces)
    assert made.linux.resources == Resources(devices=DEVICES)
    assert (made.linux.seccomp, made.linux.masked_paths) == (SECCOMP, ("/proc/kcore",))
    assert made.linux.cgroups_path == "/bench/x"


def rows(nursery_run_s: float, log: float) -> list[Series]:
    return [
        Series("run", "nursery", "s", (nursery_run_s,)),
        Series("run", "crun", "s", (0.020,)),
        Series("exec", "engine", "s", (0.012,)),
        Series("log", "nursery", "MB/s", (log,)),
    ]


def test_goals_are_met_or_missed_by_the_medians() -> None:
    assert goals(rows(0.010, 80.0)) == [
        "met: run, nursery: 0.50 times, wanted at most 1 times crun",
        "met: exec, engine: 12.0 ms, wanted at most 15.0 ms",
        "met: log, nursery: 80 MB/s, wanted at least 60 MB/s",
    ]
    assert [line.partition(":")[0] for line in goals(rows(0.030, 59.0))] == ["missed", "met", "missed"]


def test_a_goal_is_left_out_with_the_runtime_that_it_is_a_multiple_of() -> None:
    assert goals([Series("run", "nursery", "s", (0.01,))]) == []


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_lines_are_of_exactly_the_size_and_whole(size: int) -> None:
    text = lines(size)

    assert len(text) == size
    assert text.endswith(b"\n")
    assert {len(line) for line in text.splitlines()[:-1]} <= set(range(19, 139))


def test_the_stopwatch_answers_each_line() -> None:
    found = list(laps(iter([b'["true"]\n', b'["false"]\n', b'["no-such-program"]\n', b"{}\n"])))

    assert found[0].seconds > 0
    assert found[0].error == ""
    assert found[1].error.startswith("false: exit status 1")
    assert found[2].error == "program not found: no-such-program"
    assert found[3].error.startswith("invalid document")
