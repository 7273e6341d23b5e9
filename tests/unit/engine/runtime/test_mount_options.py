import pytest

from engine.kernel.mount import MountAttr, MountFlag
from engine.runtime.options import known_words, parse_options

# The table "Linux mount options" of OCI runtime-spec 1.2.0, config.md, without the id-mapping words.
_TEXT = """
async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime
noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev
rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid
rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw
shared silent slave strictatime suid symfollow sync tmpcopyup unbindable
"""
_TABLE = _TEXT.split()


def test_every_word_of_the_specification_is_known() -> None:
    assert set(_TABLE) <= set(known_words())


@pytest.mark.parametrize("word", sorted(set(_TABLE) - {"sync", "dirsync", "mand", "lazytime", "iversion"}))
def test_no_word_of_the_specification_reaches_a_file_system_that_does_not_know_it(word: str) -> None:
    assert parse_options((word,)).data == ()


@pytest.mark.parametrize(
    ("words", "data"),
    [
        (("sync", "dirsync"), (("sync", None), ("dirsync", None))),
        (("sync", "async"), ()),
        (("async", "sync"), (("sync", None),)),
        (("mand", "mand"), (("mand", None),)),
        (("iversion", "noiversion", "lazytime"), (("lazytime", None),)),
        (("size=1m", "sync", "size=2m"), (("size", "1m"), ("sync", None), ("size", "2m"))),
    ],
)
def test_what_the_file_system_is_asked_for(
    words: tuple[str, ...], data: tuple[tuple[str, str | None], ...]
) -> None:
    assert parse_options(words).data == data


def test_recursive_words_count_for_a_new_mount_and_win() -> None:
    assert parse_options(("rw", "rro", "nosuid", "rsuid")).attr_new == MountAttr.RDONLY
    assert parse_options(("noatime", "rstrictatime")).attr_new == MountAttr.STRICTATIME


def test_attributes_are_set_and_cleared_apart_for_the_mount_and_for_the_tree() -> None:
    options = parse_options(("rbind", "ro", "rnosuid", "rexec", "noatime", "nostrictatime"))

    assert options.attr_set == MountAttr.RDONLY | MountAttr.NOATIME
    assert options.attr_clr & MountAttr.STRICTATIME
    assert options.rec_set == MountAttr.NOSUID
    assert options.rec_clr == MountAttr.NOEXEC


def test_propagation_keeps_its_order() -> None:
    words = ("rprivate", "shared", "runbindable")

    kinds = ((MountFlag.PRIVATE, True), (MountFlag.SHARED, False), (MountFlag.UNBINDABLE, True))
    assert parse_options(words).propagation == kinds


def test_bind_beside_rbind_stays_recursive() -> None:
    assert parse_options(("rbind", "bind")).recursive


def test_the_last_value_of_an_option() -> None:
    options = parse_options(("mode=700", "mode=755", "noswap"))

    assert options.value_of("mode") == "755"
    assert options.value_of("noswap") is None
    assert options.value_of("size") is None
