"""Mount options, from words to flags; pure.

Source: OCI runtime-spec 1.2.0, config.md, "Linux mount options".
"""

import msgspec

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
    "nostrictatime": (MountAttr.NONE, MountAttr.STRICTATIME),
    "defaults": (MountAttr.NONE, MountAttr.NONE),
}
_RECURSIVE = {f"r{word}": value for word, value in _PLAIN.items() if word != "defaults"}
_PROPAGATION = {
    "private": MountFlag.PRIVATE,
    "shared": MountFlag.SHARED,
    "slave": MountFlag.SLAVE,
    "unbindable": MountFlag.UNBINDABLE,
}
_SUPERBLOCK = frozenset({"sync", "dirsync", "mand", "lazytime", "iversion"})  # asked of the file system
_OPPOSITE = {"async": "sync", "nomand": "mand", "nolazytime": "lazytime", "noiversion": "iversion"}
_SWITCHES = ("remount", "tmpcopyup", "idmap", "ridmap")
_REFUSED = frozenset({"move"})
_IGNORED = frozenset({"silent", "loud", "nofail", "auto", "noauto", "user", "nouser", "_netdev"})


def known_words() -> list[str]:
    """Return the words that mean the same for every file system."""
    propagation = {*_PROPAGATION, *(f"r{word}" for word in _PROPAGATION)}
    quiet = {"silent", "loud"}
    return sorted(
        {*_PLAIN, *_RECURSIVE, *_SUPERBLOCK, *_OPPOSITE, *_SWITCHES, *quiet, *propagation, "bind", "rbind"}
    )


class MountOptions(msgspec.Struct, frozen=True):
    """What the words of one mount ask for."""

    attr_set: MountAttr = MountAttr.NONE
    attr_clr: MountAttr = MountAttr.NONE
    rec_set: MountAttr = MountAttr.NONE  # for the whole tree of a recursive bind
    rec_clr: MountAttr = MountAttr.NONE
    bind: bool = False
    recursive: bool = False
    propagation: tuple[tuple[MountFlag, bool], ...] = ()  # (kind, recursive), in order
    data: tuple[tuple[str, str | None], ...] = ()  # for the file system itself
    remount: bool = False  # change what is mounted there
    copy_up: bool = False  # fill a new tmpfs with what it hides
    map_ids: bool = False
    map_tree: bool = False  # the ids of the whole tree of a recursive bind

    @property
    def attr_new(self) -> MountAttr:
        """The attributes of a new mount, which is a tree of one: recursive words count too, and win."""
        return _merge((self.attr_set, self.attr_clr), (self.rec_set, self.rec_clr))[0]

    def value_of(self, key: str) -> str | None:
        """Return the value of the file system's option `key`; None when it has none."""
        return next((value for name, value in reversed(self.data) if name == key), None)


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
    found = set[str]()
    propagation: list[tuple[MountFlag, bool]] = []
    data: list[tuple[str, str | None]] = []
    for word in words:
        if word in _PLAIN or word in _RECURSIVE:
            whole_tree = word not in _PLAIN
            flags[whole_tree] = _merge(flags[whole_tree], (_RECURSIVE if whole_tree else _PLAIN)[word])
        elif word in ("bind", "rbind", *_SWITCHES):
            found.add(word)
        elif word in _PROPAGATION or word[1:] in _PROPAGATION:
            propagation.append(propagation_of(word))
        elif word in _REFUSED:
            raise NotSupported(f"mount option {word!r} is not supported")
        elif word not in _IGNORED and word:
            _add_data(data, word)
    return MountOptions(
        *flags[False],
        *flags[True],
        bind=not found.isdisjoint({"bind", "rbind"}),
        recursive="rbind" in found,
        propagation=tuple(propagation),
        data=tuple(data),
        remount="remount" in found,
        copy_up="tmpcopyup" in found,
        map_ids=not found.isdisjoint({"idmap", "ridmap"}),
        map_tree="ridmap" in found,
    )


def _add_data(data: list[tuple[str, str | None]], word: str) -> None:
    key, equals, value = word.partition("=")
    if key in _SUPERBLOCK or key in _OPPOSITE:
        # What is off from the start need not be switched off; not every file system knows the word.
        data[:] = [pair for pair in data if pair[0] != _OPPOSITE.get(key, key)]
    if key not in _OPPOSITE:
        data.append((key, value if equals else None))


def _merge(old: tuple[MountAttr, MountAttr], new: tuple[MountAttr, MountAttr]) -> tuple[MountAttr, MountAttr]:
    (old_set, old_clr), (new_set, new_clr) = old, new
    return (old_set & ~new_clr) | new_set, (old_clr & ~new_set) | new_clr
