"""The processes of a container, as `docker top` shows them, read from /proc.

No `ps` is run: a machine of ours has none, and the host's sees the same.

Source: ps(1), proc(5).
"""

import contextlib
import os
import pwd
import time
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import InvalidArgument
from engine.runtime.cgroups.select import cgroup_at

_FULL = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
_BSD = ("USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND")
_STYLES = {"": _FULL, "-ef": _FULL, "-fe": _FULL, "ef": _FULL, "aux": _BSD, "-aux": _BSD, "auxw": _BSD}
_NAMES = {
    "uid": "UID", "user": "USER", "euser": "USER", "pid": "PID", "ppid": "PPID", "c": "C", "stime": "STIME",
    "start": "START", "tty": "TTY", "tt": "TTY", "time": "TIME", "cmd": "CMD", "args": "COMMAND",
    "command": "COMMAND", "comm": "COMM", "ucmd": "COMM", "vsz": "VSZ", "rss": "RSS", "stat": "STAT",
    "%cpu": "%CPU", "pcpu": "%CPU", "%mem": "%MEM", "pmem": "%MEM",
}  # fmt: skip
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PTS_MAJORS = range(136, 144)
_DAY_S = 86400


@dataclass(frozen=True, slots=True)
class _Stat:
    comm: str
    state: str
    ppid: int
    tty: int
    ticks: int
    start_ticks: int
    vsize: int
    rss_pages: int


def table(cgroup: str, ps_args: str) -> dict[str, list[object]]:
    """Return docker's ContainerTopResponse for the processes of a control group.

    Raises:
        InvalidArgument: `ps_args` asks for what is not known here.
    """
    titles = columns(ps_args)
    rows: list[object] = []
    for pid in sorted(cgroup_at(cgroup).processes()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            rows.append(_row(pid, titles))
    return {"Titles": list(titles), "Processes": rows}


def columns(ps_args: str) -> tuple[str, ...]:
    """Return the titles that arguments of ps(1) ask for: `-ef`, `aux`, or `-o` with a list.

    Raises:
        InvalidArgument: they ask for anything else.
    """
    text = ps_args.strip()
    if text in _STYLES:
        return _STYLES[text]
    words = text.replace("=", " ").split()
    for index, word in enumerate(words):
        if word in {"-o", "-eo", "o", "-o,"} and index + 1 < len(words):
            names = [name for name in ",".join(words[index + 1 :]).split(",") if name]
            if all(name in _NAMES for name in names):
                return tuple(_NAMES[name] for name in names)
            raise InvalidArgument(f"top: unknown column in {text!r}", hint=f"known: {', '.join(_NAMES)}")
    raise InvalidArgument(f"top: unsupported ps arguments {text!r}", hint="use -ef, aux, or -o with columns")


def _row(pid: int, titles: tuple[str, ...]) -> list[str]:
    directory = Path(f"/proc/{pid}")
    stat = _read_stat(directory)
    uid = os.stat(directory).st_uid
    command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    uptime_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    age_s = max(uptime_s - stat.start_ticks / _TICKS, 0.01)
    cpu = 100 * stat.ticks / _TICKS / age_s
    memory = os.sysconf("SC_PHYS_PAGES")
    started = time.strftime("%H:%M" if age_s < _DAY_S else "%b%d", time.localtime(time.time() - age_s))
    seconds = stat.ticks // _TICKS
    cells = {
        "UID": _user(uid),
        "USER": _user(uid),
        "PID": str(pid),
        "PPID": str(stat.ppid),
        "C": str(int(cpu)),
        "STIME": started,
        "START": started,
        "TTY": _terminal(stat.tty),
        "TIME": f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}",
        "CMD": command or f"[{stat.comm}]",
        "COMMAND": command or f"[{stat.comm}]",
        "COMM": stat.comm,
        "%CPU": f"{cpu:.1f}",
        "%MEM": f"{100 * stat.rss_pages / memory:.1f}",
        "VSZ": str(stat.vsize // 1024),
        "RSS": str(stat.rss_pages * _PAGE // 1024),
        "STAT": stat.state,
    }
    return [cells[title] for title in titles]


def _read_stat(directory: Path) -> _Stat:
    text = (directory / "stat").read_text(encoding="utf-8", errors="replace")
    comm = text[text.index("(") + 1 : text.rindex(")")]
    rest = text[text.rindex(")") + 2 :].split()
    return _Stat(
        comm=comm,
        state=rest[0],
        ppid=int(rest[1]),
        tty=int(rest[4]),
        ticks=int(rest[11]) + int(rest[12]),
        start_ticks=int(rest[19]),
        vsize=int(rest[20]),
        rss_pages=int(rest[21]),
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _terminal(number: int) -> str:
    if number == 0:
        return "?"
    major, minor = os.major(number), os.minor(number)
    return f"pts/{minor + 256 * (major - _PTS_MAJORS[0])}" if major in _PTS_MAJORS else f"{major}:{minor}"
