"""Mount options, from words to flags; pure.

Source: OCI runtime-spec 1.2.0, config.md, "Linux mount options".
"""

from dataclasses import dataclass

from engine.base.errors import InvalidArgument, NotSupported
from engine.kernel.mount import MountAttr, MountFlag

_PLAIN: dict[str, tuple[MountAttr, MountAttr]] = {  # word -> (set, clear)
    "ro": (MountAttr.RDONLY, MountAttr.NONE),
    "rw": (MountAttr.NONE, MountAttr.RDONLY),
    "nosuid": (MountAttr.NOSUID, MountAttr.NONE),
    "suid": (MountAttr.NONE, MountAttr.NOSUID),
    "nodev": (MountAttr.NODEV, MountAttr.NONE),
    "dev": (MountAttr.NONE, MountAttr.NODEV),
    "noexec": (MountAttr.NOEXEC, MountAttr.NONE),
    "exec": (MountAttr.NONE, MountAttr.NOEXEC),
    "nosymfollow": (MountAttr.NOSYMFOLLOW, MountAttr.NONE),
    "symfollow": (MountAttr.NONE, MountAttr.NOSYMFOLLOW),
    "nodiratime": (MountAttr.NODIRATIME, MountAttr.NONE),
    "diratime": (MountAttr.NONE, MountAttr.NODIRATIME),
    # The three access-time modes are values of one field: setting one clears the field.
    "noatime": (MountAttr.NOATIME, MountAttr.ATIME_FIELD),
    "relatime": (MountAttr.NONE, MountAttr.ATIME_FIELD),
    "strictatime": (MountAttr.STRICTATIME, MountAttr.ATIME_FIELD),
    "atime": (MountAttr.NONE, MountAttr.ATIME_FIELD),
    "norelatime": (MountAttr.NONE, MountAttr.NONE),
    "nostrictatime": (MountAttr.NONE, MountAttr.NONE),
    "defaults": (MountAttr.NONE, MountAttr.NONE),
}
_RECURSIVE = {f"r{word}": value for word, value in _PLAIN.items() if word != "defaults"}
_PROPAGATION = {
    "private": MountFlag.PRIVATE,
    "shared": MountFlag.SHARED,
    "slave": MountFlag.SLAVE,
    "unbindable": MountFlag.UNBINDABLE,
}
_REFUSED = frozenset({"idmap", "ridmap", "remount", "tmpcopyup", "move"})
_IGNORED = frozenset({"silent", "loud", "nofail", "auto", "noauto", "user", "nouser", "_netdev"})


def known_words() -> list[str]:
    """Return the words that mean the same for every file system."""
    return sorted(
        {*_PLAIN, *_RECURSIVE, "bind", "rbind", *_PROPAGATION, *(f"r{word}" for word in _PROPAGATION)}
    )


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What the words of one mount ask for."""

    attr_set: MountAttr = MountAttr.NONE
    attr_clr: MountAttr = MountAttr.NONE
    rec_set: MountAttr = MountAttr.NONE  # for the whole tree of a recursive bind
    rec_clr: MountAttr = MountAttr.NONE
    bind: bool = False
    recursive: bool = False
    propagation: tuple[tuple[MountFlag, bool], ...] = ()  # (kind, recursive), in order
    data: tuple[tuple[str, str | None], ...] = ()  # for the file system itself


def propagation_of(word: str) -> tuple[MountFlag, bool]:
    """Return the kind, and whether it is for the whole tree, of `rslave` and its like.

    Raises:
        InvalidArgument: it is no such word.
    """
    kind = _PROPAGATION.get(word) or _PROPAGATION.get(word[1:] if word.startswith("r") else "")
    if kind is None:
        raise InvalidArgument(f"invalid mount propagation: {word!r}")
    return kind, word not in _PROPAGATION


def parse_options(words: tuple[str, ...]) -> MountOptions:
    """Return the meaning of `words`; of words that contradict each other the last one wins.

    Raises:
        NotSupported: a word asks for what this runtime does not do.
    """
    flags = {False: (MountAttr.NONE, MountAttr.NONE), True: (MountAttr.NONE, MountAttr.NONE)}
    bind = recursive = False
    propagation: list[tuple[MountFlag, bool]] = []
    data: list[tuple[str, str | None]] = []
    for word in words:
        if word in _PLAIN or word in _RECURSIVE:
            whole_tree = word not in _PLAIN
            flags[whole_tree] = _merge(flags[whole_tree], (_RECURSIVE if whole_tree else _PLAIN)[word])
        elif word in ("bind", "rbind"):
            bind, recursive = True, word == "rbind"
        elif word in _PROPAGATION or word[1:] in _PROPAGATION:
            propagation.append(propagation_of(word))
        elif word in _REFUSED:
            raise NotSupported(f"mount option {word!r} is not supported")
        elif word not in _IGNORED and word:
            key, equals, value = word.partition("=")
            data.append((key, value if equals else None))
    return MountOptions(*flags[False], *flags[True], bind, recursive, tuple(propagation), tuple(data))


def _merge(old: tuple[MountAttr, MountAttr], new: tuple[MountAttr, MountAttr]) -> tuple[MountAttr, MountAttr]:
    (old_set, old_clr), (new_set, new_clr) = old, new
    return (old_set & ~new_clr) | new_set, (old_clr & ~new_set) | new_clr
