from pathlib import Path

import msgspec
import pytest

from benchmarks import report, results
from benchmarks.environment import Environment, processor
from benchmarks.stats import Series
from engine.base.errors import InvalidArgument

HOST = Environment(
    system="Linux",
    kernel="6.18",
    processor="A processor",
    cpus=2,
    memory_bytes=24 << 30,
    python="3.11",
    load=0.5,
)
SERIES = [
    Series("run --rm busybox true", "native", "s", (0.1, 0.125, 0.15)),
    Series("machine cold start", "machine", "s", (5.0, 5.5)),
    Series("memory: idle shim, private", "native", "bytes", (3.0 * (1 << 20),)),
]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0512, "s", "51.2 ms"),
        (6.314, "s", "6.31 s"),
        (1.0, "s", "1.00 s"),
        (512, "bytes", "512 B"),
        (1536, "bytes", "1.5 KiB"),
        (42 << 20, "bytes", "42.0 MiB"),
        (3 << 30, "bytes", "3.0 GiB"),
        (7, "starts/s", "7 starts/s"),
    ],
)
def test_amounts_are_written_as_people_read_them(value: float, unit: str, text: str) -> None:
    assert report.amount(value, unit) == text


def test_a_report_has_host_table_and_what_was_left_out() -> None:
    found = results.build("startup", HOST, SERIES, ["native: needs root"])

    assert report.lines(found) == [
        "A processor, 2 cpus, 24.0 GiB; Linux 6.18; Python 3.11; load 0.5",
        "",
        "WHAT                        WHERE      MEDIAN       MAD     LEAST      MOST  RUNS",
        "run --rm busybox true       native   125.0 ms   25.0 ms  100.0 ms  150.0 ms     3",
        "machine cold start          machine    5.25 s  250.0 ms    5.00 s    5.50 s     2",
        "memory: idle shim, private  native    3.0 MiB       0 B   3.0 MiB   3.0 MiB     1",
        "",
        "left out: native: needs root",
    ]


def test_a_figure_under_emulation_says_so_and_why() -> None:
    host = msgspec.structs.replace(HOST, emulator="qemu 7.2", accelerator="tcg", accelerator_reason="no kvm")

    assert report.lines(results.build("startup", host, SERIES, []))[1] == "qemu 7.2, accelerator tcg (no kvm)"


def test_a_document_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    found = results.build("startup", HOST, SERIES, [])

    path = results.write(found, tmp_path / "out")

    assert path.parent == tmp_path / "out"
    assert results.read(path) == found
    assert found.schema == 1
    assert found.rows[0].values == (0.1, 0.125, 0.15)


def test_what_is_no_document_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"schema": 1}')

    with pytest.raises(InvalidArgument, match="benchmark"):
        results.read(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC 7\n", "AMD EPYC 7"),
        ("processor\t: 0\nModel\t\t: Raspberry Pi 4\n", "Raspberry Pi 4"),
    ],
)
def test_the_processor_is_named(cpuinfo: str, name: str) -> None:
    assert processor(cpuinfo) == name
