"""From the flags of `run` and `create` to the body of POST /containers/create.

A pure function, but for the files that --env-file, --label-file and
--security-opt name. Only what differs from the API's defaults is sent.

Source: docker/cli v28, cli/command/container/opts.go, parse.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from engine.base.errors import InvalidArgument
from engine.base.units import parse_duration_ns, parse_size
from hostagent.cli.mounts import parse_mount, parse_tmpfs, split_fields, split_volumes
from hostagent.cli.ports import parse_expose, parse_publish

Flags = Mapping[str, Any]
Json = dict[str, Any]
T = TypeVar("T")
_STREAMS = frozenset({"stdin", "stdout", "stderr"})
_NANO = 1_000_000_000


def container_body(flags: Flags, environ: Mapping[str, str]) -> Json:
    """Return the whole body for `flags`, named as in `hostagent.cli.createflags`.

    Raises:
        InvalidArgument: a value is malformed, or two flags exclude each other; the message names the flag.
        OSError: a file that a flag names cannot be read.
    """
    _refuse_conflicts(flags)
    binds, anonymous = split_volumes(flags["volume"])
    ports = _at("--publish", parse_publish, flags["publish"])
    exposed: Json = {key: {} for key in ports} | _at("--expose", parse_expose, flags["expose"])
    attached = _streams(flags["attach"])
    interactive, explicit = flags["interactive"], bool(attached)
    attach_stdin = "stdin" in attached or interactive
    body: Json = {
        "Image": flags["image"],
        "Cmd": list(flags["words"]) or None,
        "Hostname": flags["hostname"],
        "Domainname": flags["domainname"],
        "User": flags["user"],
        "AttachStdin": attach_stdin,
        "AttachStdout": not explicit or "stdout" in attached,
        "AttachStderr": not explicit or "stderr" in attached,
        "Tty": flags["tty"],
        "OpenStdin": interactive,
        "StdinOnce": interactive and attach_stdin,
        "ExposedPorts": exposed,
        "Env": environment(flags["env_file"], flags["env"], environ),
        "Volumes": anonymous,
        "WorkingDir": flags["workdir"],
        "Entrypoint": entrypoint(flags["entrypoint"]),
        "Labels": _pairs([*_lines(flags["label_file"]), *flags["label"]]),
        "StopSignal": flags["stop_signal"],
        "StopTimeout": flags["stop_timeout"],
        "Healthcheck": _healthcheck(flags),
    }
    kept = {key: item for key, item in body.items() if item not in (None, "", [], {}, False)}
    if body["Entrypoint"] == [""]:
        kept["Entrypoint"] = [""]
    for key in ("AttachStdout", "AttachStderr"):
        kept[key] = body[key]
    kept["HostConfig"] = _host_config(flags, binds, ports)
    kept["NetworkingConfig"] = {"EndpointsConfig": _endpoints(flags)}
    return kept


def _refuse_conflicts(flags: Flags) -> None:
    if flags["link_local_ip"]:
        raise InvalidArgument("--link-local-ip is not supported")
    if flags["rm"] and flags["restart"] not in ("", "no"):
        raise InvalidArgument("conflicting options: cannot specify both --restart and --rm")
    if flags["no_healthcheck"] and (flags["health_cmd"] or flags["health_retries"]):
        raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
    if flags["pull"] not in ("always", "missing", "never"):
        raise InvalidArgument(
            f'invalid argument {flags["pull"]!r} for "--pull": want always, missing or never'
        )
    unknown = _streams(flags["attach"]) - _STREAMS
    if unknown:
        raise InvalidArgument(
            f'invalid argument "{unknown.pop()}" for "--attach": want STDIN, STDOUT or STDERR'
        )


def _streams(words: Iterable[str]) -> set[str]:
    return {word.lower() for word in words}


def _at(flag: str, parse: Callable[[Any], T], text: Any) -> T:  # noqa: ANN401 (a word, or words)
    """Return ``parse(text)``; an error names the flag."""
    try:
        return parse(text)
    except InvalidArgument as err:
        shown = f" {json.dumps(text)}" if isinstance(text, str) else ""
        raise InvalidArgument(f'invalid argument{shown} for "{flag}": {err}', hint=err.hint) from err


def environment(files: Iterable[str], words: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """Return Env: ``KEY=value`` as it is, ``KEY`` with the caller's value or not at all."""
    result = []
    for word in [*_lines(files), *words]:
        name, equals, _ = word.partition("=")
        if not name:
            raise InvalidArgument(f'invalid argument "{word}" for "--env": no variable name')
        if equals:
            result.append(word)
        elif name in environ:
            result.append(f"{name}={environ[name]}")
    return result


def _lines(files: Iterable[str]) -> list[str]:
    lines: list[str] = []
    for path in files:
        for line in _read(path).removeprefix("\ufeff").split("\n"):
            text = line.lstrip().removesuffix("\r")
            if not text or text.startswith("#"):
                continue
            name = text.partition("=")[0]
            if not name or name != name.strip() or " " in name:
                raise InvalidArgument(f"{path}: variable {name!r} contains white space or is empty")
            lines.append(text)
    return lines


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        try:
            return file.read()
        except UnicodeDecodeError as err:
            raise InvalidArgument(f"{path}: not UTF-8 text: {err.reason} at byte {err.start}") from err


def _pairs(words: Iterable[str]) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in words)


def entrypoint(text: str | None) -> list[str] | None:
    """Return Entrypoint: none given, reset by an empty word, or one program."""
    return None if text is None else [text]


def _healthcheck(flags: Flags) -> Json | None:
    if flags["no_healthcheck"]:
        return {"Test": ["NONE"]}
    check: Json = {"Test": ["CMD-SHELL", flags["health_cmd"]] if flags["health_cmd"] else None}
    for key, name in (
        ("Interval", "health_interval"), ("Timeout", "health_timeout"),
        ("StartPeriod", "health_start_period"), ("StartInterval", "health_start_interval"),
    ):  # fmt: skip
        check[key] = _at("--" + name.replace("_", "-"), parse_duration_ns, flags[name])
    check["Retries"] = flags["health_retries"]
    check = {key: item for key, item in check.items() if item}
    return check or None


def _host_config(flags: Flags, binds: list[str], ports: dict[str, list[dict[str, str]]]) -> Json:
    networks = [_network_name(word) for word in flags["network"]]
    config: Json = {
        "Binds": binds,
        "Mounts": [_at("--mount", parse_mount, word) for word in flags["mount"]],
        "Tmpfs": parse_tmpfs(flags["tmpfs"]),
        "PortBindings": ports,
        "PublishAllPorts": flags["publish_all"],
        "ContainerIDFile": flags["cidfile"],
        "AutoRemove": flags["rm"],
        "Privileged": flags["privileged"],
        "ReadonlyRootfs": flags["read_only"],
        "Init": flags["init"] or None,
        "LogConfig": {"Type": flags["log_driver"], "Config": _pairs(flags["log_opt"])},
        "RestartPolicy": _restart_policy(flags["restart"]),
        "VolumeDriver": flags["volume_driver"],
        "VolumesFrom": list(flags["volumes_from"]),
        "Annotations": _pairs(flags["annotation"]),
        "CapAdd": list(flags["cap_add"]),
        "CapDrop": list(flags["cap_drop"]),
        "CgroupnsMode": flags["cgroupns"],
        "Dns": list(flags["dns"]),
        "DnsOptions": list(flags["dns_option"]),
        "DnsSearch": list(flags["dns_search"]),
        "ExtraHosts": [_extra_host(word) for word in flags["add_host"]],
        "GroupAdd": list(flags["group_add"]),
        "IpcMode": flags["ipc"],
        "Links": list(flags["link"]),
        "OomScoreAdj": flags["oom_score_adj"],
        "PidMode": flags["pid"],
        "UTSMode": flags["uts"],
        "UsernsMode": flags["userns"],
        "Isolation": flags["isolation"],
        "Runtime": flags["runtime"],
        "StorageOpt": _pairs(flags["storage_opt"]),
        "Sysctls": _pairs(flags["sysctl"]),
        "ShmSize": _size(flags, "shm_size"),
    }
    config |= _resources(flags) | _security(flags["security_opt"])
    kept = {key: item for key, item in config.items() if item not in (None, "", [], {}, 0, False)}
    for key in ("MaskedPaths", "ReadonlyPaths"):
        if key in config:
            kept[key] = []  # an empty list is a wish here: mask nothing
    kept["NetworkMode"] = networks[0] if networks else "default"
    if flags["memory_swappiness"] >= 0:
        kept["MemorySwappiness"] = flags["memory_swappiness"]
    return kept


def _size(flags: Flags, name: str) -> int:
    text = flags[name]
    return _at("--" + name.replace("_", "-"), parse_size, text) if text else 0


def _resources(flags: Flags) -> Json:
    return {
        "CpuShares": flags["cpu_shares"],
        "NanoCpus": _nano_cpus(flags["cpus"]),
        "CpuPeriod": flags["cpu_period"],
        "CpuQuota": flags["cpu_quota"],
        "CpusetCpus": flags["cpuset_cpus"],
        "CpusetMems": flags["cpuset_mems"],
        "Memory": _size(flags, "memory"),
        "MemoryReservation": _size(flags, "memory_reservation"),
        "MemorySwap": -1 if flags["memory_swap"] == "-1" else _size(flags, "memory_swap"),
        "OomKillDisable": flags["oom_kill_disable"],
        "PidsLimit": flags["pids_limit"],
        "BlkioWeight": flags["blkio_weight"],
        "CgroupParent": flags["cgroup_parent"],
        "Devices": [_at("--device", _device, word) for word in flags["device"]],
        "DeviceCgroupRules": list(flags["device_cgroup_rule"]),
        "Ulimits": [_at("--ulimit", _ulimit, word) for word in flags["ulimit"]],
    }


def _nano_cpus(text: str) -> int:
    if not text:
        return 0
    try:
        return round(float(text) * _NANO)
    except (ValueError, OverflowError):
        raise InvalidArgument(f'invalid argument "{text}" for "--cpus": want a number such as 1.5') from None


def _restart_policy(text: str) -> Json:
    name, colon, count = text.partition(":")
    if name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise InvalidArgument(f'invalid argument "{text}" for "--restart": unknown policy {name!r}')
    if colon and not (count.isdigit() and name == "on-failure"):
        raise InvalidArgument(f'invalid argument "{text}" for "--restart": want on-failure:COUNT')
    return {"Name": name or "no", "MaximumRetryCount": int(count or 0)}


def _extra_host(word: str) -> str:
    at = min((word.find(mark) for mark in "=:" if mark in word), default=-1)
    if at <= 0 or at == len(word) - 1:
        raise InvalidArgument(f'invalid argument "{word}" for "--add-host": want host:ip')
    return f"{word[:at]}:{word[at + 1 :].strip('[]')}"


def _device(word: str) -> Json:
    parts = word.split(":")
    permissions = parts.pop() if len(parts) > 1 and parts[-1] and set(parts[-1]) <= set("rwm") else "rwm"
    if not parts[0] or len(parts) > 2:  # noqa: PLR2004 (host and container)
        raise InvalidArgument("want HOST[:CONTAINER][:PERMISSIONS]")
    return {"PathOnHost": parts[0], "PathInContainer": parts[-1], "CgroupPermissions": permissions}


def _ulimit(word: str) -> Json:
    name, equals, limits = word.partition("=")
    soft, colon, hard = limits.partition(":")
    try:
        low = int(soft)
        high = int(hard) if colon else low
    except ValueError:
        raise InvalidArgument("want NAME=SOFT[:HARD]") from None
    if not name or not equals or (high != -1 and low > high):
        raise InvalidArgument("want NAME=SOFT[:HARD], the soft limit not above the hard one")
    return {"Name": name, "Soft": low, "Hard": high}


def _security(words: Iterable[str]) -> Json:
    options: list[str] = []
    result: Json = {}
    for word in words:
        key, mark, text = word.partition("=")
        if not mark:
            key, mark, text = word.partition(":")
        if word == "systempaths=unconfined":
            result |= {"MaskedPaths": [], "ReadonlyPaths": []}
        elif key == "seccomp" and text not in ("unconfined", "builtin"):
            options.append(f"seccomp={_seccomp_profile(text)}")
        elif not mark and word != "no-new-privileges":
            raise InvalidArgument(f'invalid argument "{word}" for "--security-opt": want KEY=VALUE')
        else:
            options.append(word)
    return result | {"SecurityOpt": options}


def _seccomp_profile(path: str) -> str:
    try:
        return json.dumps(json.loads(_read(path)), separators=(",", ":"))
    except ValueError as err:
        raise InvalidArgument(f"{path}: not a seccomp profile: {err}") from err


def _network_name(word: str) -> str:
    return _network(word)["name"] if "=" in word else word


def _network(word: str) -> Json:
    result: Json = {"aliases": [], "driver_opts": {}}
    if "=" not in word:
        return result | {"name": word}
    for field in split_fields(word):
        key, _, text = field.partition("=")
        if key == "alias":
            result["aliases"].append(text)
        elif key == "driver-opt":
            result["driver_opts"].update(_pairs([text]))
        elif key == "gw-priority" and text.removeprefix("-").isdecimal():
            result[key] = int(text)
        elif key in ("name", "ip", "ip6", "mac-address"):
            result[key] = text
        else:
            raise InvalidArgument(f'invalid argument "{word}" for "--network": unexpected {field!r}')
    if not result.get("name"):
        raise InvalidArgument(f'invalid argument "{word}" for "--network": name is required')
    return result


def _endpoints(flags: Flags) -> Json:
    networks = [_network(word) for word in flags["network"]] or [_network("default")]
    first = networks[0]
    for key, name in (("ip", "ip"), ("ip6", "ip6"), ("mac-address", "mac_address")):
        if flags[name]:
            first[key] = flags[name]
    first["aliases"] = [*first["aliases"], *flags["network_alias"]]
    endpoints: Json = {}
    for network in networks:
        addresses = {"IPv4Address": network.get("ip"), "IPv6Address": network.get("ip6")}
        endpoint = {
            "IPAMConfig": {key: text for key, text in addresses.items() if text},
            "Aliases": network["aliases"],
            "MacAddress": network.get("mac-address"),
            "DriverOpts": network["driver_opts"],
            "GwPriority": network.get("gw-priority", 0),
            "Links": list(flags["link"]) if network is first else [],
        }
        endpoints[network["name"]] = {key: item for key, item in endpoint.items() if item}
    return endpoints
