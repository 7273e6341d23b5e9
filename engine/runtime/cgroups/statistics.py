"""What a container uses, from its control group's files, in the words of runc's events; pure but for `read`.

Source: runc-events(8) and types/events.go of runc 1.2; Linux admin-guide,
cgroup-v1/ and cgroup-v2.rst. Times are nanoseconds, sizes bytes.
"""

from collections.abc import Callable

Reader = Callable[[str, str], str]  # (controller, file) -> its text; "" when there is none
Document = dict[str, object]

_PAIR = 2
_TICK_NS = 10_000_000  # USER_HZ is 100 on every machine of Linux
_NO_LIMIT = (1 << 64) - 1
_IO_OPERATIONS = ("Read", "Write", "Sync", "Async", "Discard", "Total")
_BLKIO = {
    "ioServiceBytesRecursive": "blkio.throttle.io_service_bytes_recursive",
    "ioServicedRecursive": "blkio.throttle.io_serviced_recursive",
}


def table(text: str) -> dict[str, int]:
    """Return the lines `key number` of a file; others are left out."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == _PAIR and pair[1].isdecimal()}


def number(text: str) -> int:
    """Return a file's one number; `max` is the largest, nothing is 0."""
    word = text.strip()
    return _NO_LIMIT if word == "max" else int(word or 0)


def legacy(read: Reader) -> Document:
    """Return the statistics of the legacy layout."""
    cpu, stat = table(read("cpu", "cpu.stat")), table(read("cpuacct", "cpuacct.stat"))
    memory = table(read("memory", "memory.stat"))
    return {
        "cpu": {
            "usage": {
                "total": number(read("cpuacct", "cpuacct.usage")),
                "percpu": [int(word) for word in read("cpuacct", "cpuacct.usage_percpu").split()],
                "kernel": stat.get("system", 0) * _TICK_NS,
                "user": stat.get("user", 0) * _TICK_NS,
            },
            "throttling": _throttling(cpu, cpu.get("throttled_time", 0)),
        },
        "memory": {
            "cache": memory.get("cache", 0),
            "usage": _memory_v1(read, "memory"),
            "swap": _memory_v1(read, "memory.memsw"),
            "kernel": _memory_v1(read, "memory.kmem"),
            "kernelTCP": _memory_v1(read, "memory.kmem.tcp"),
            "raw": memory,
        },
        "pids": _pids(read),
        "blkio": {name: _blkio(read("blkio", file)) for name, file in _BLKIO.items()},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def unified(read: Reader) -> Document:
    """Return the statistics of cgroup2, in v1's words as runc has them."""
    cpu, memory = table(read("cpu", "cpu.stat")), table(read("memory", "memory.stat"))
    return {
        "cpu": {
            "usage": {
                "total": cpu.get("usage_usec", 0) * 1000,
                "kernel": cpu.get("system_usec", 0) * 1000,
                "user": cpu.get("user_usec", 0) * 1000,
            },
            "throttling": _throttling(cpu, cpu.get("throttled_usec", 0) * 1000),
        },
        "memory": {
            "cache": memory.get("file", 0),
            "usage": _memory_v2(read, "memory", table(read("memory", "memory.events")).get("max", 0)),
            "swap": _memory_v2(
                read, "memory.swap", table(read("memory", "memory.swap.events")).get("max", 0)
            ),
            "kernel": {},
            "kernelTCP": {},
            "raw": memory,
        },
        "pids": _pids(read),
        "blkio": _io(read("io", "io.stat")),
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _throttling(cpu: dict[str, int], time_ns: int) -> Document:
    return {
        "periods": cpu.get("nr_periods", 0),
        "throttledPeriods": cpu.get("nr_throttled", 0),
        "throttledTime": time_ns,
    }


def _memory_v1(read: Reader, name: str) -> Document:
    return {
        "limit": number(read("memory", f"{name}.limit_in_bytes")),
        "usage": number(read("memory", f"{name}.usage_in_bytes")),
        "max": number(read("memory", f"{name}.max_usage_in_bytes")),
        "failcnt": number(read("memory", f"{name}.failcnt")),
    }


def _memory_v2(read: Reader, name: str, failures: int) -> Document:
    return {
        "limit": number(read("memory", f"{name}.max")),
        "usage": number(read("memory", f"{name}.current")),
        "max": number(read("memory", f"{name}.peak")),
        "failcnt": failures,
    }


def _pids(read: Reader) -> Document:
    limit = read("pids", "pids.max").strip()
    return {"current": number(read("pids", "pids.current")), "limit": 0 if limit == "max" else number(limit)}


def _blkio(text: str) -> list[Document]:
    found: list[Document] = []
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        major, colon, minor = device.partition(":")
        operation, _, value = rest.partition(" ")
        if colon and operation in _IO_OPERATIONS:
            found.append({"major": int(major), "minor": int(minor), "op": operation, "value": int(value)})
    return found


def _io(text: str) -> Document:
    sizes: list[Document] = []
    counts: list[Document] = []
    kinds = {
        "rbytes": (sizes, "Read"),
        "wbytes": (sizes, "Write"),
        "rios": (counts, "Read"),
        "wios": (counts, "Write"),
    }
    for line in text.splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key in kinds:
                where, operation = kinds[key]
                where.append({"major": int(major), "minor": int(minor), "op": operation, "value": int(value)})
    return {"ioServiceBytesRecursive": sizes, "ioServicedRecursive": counts}
