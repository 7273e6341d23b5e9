from benchmarks.runner import Measurement, interleave


def test_measurements_take_turns_to_and_fro_and_warmups_are_dropped() -> None:
    order: list[str] = []
    told: list[str] = []

    def measurement(name: str, *, runs: int = 0, warmups: int | None = None) -> Measurement:
        def measure() -> float:
            order.append(name)
            return float(len(order))

        return Measurement("start", name, "s", measure, runs=runs, warmups=warmups)

    series = interleave(
        [measurement("a"), measurement("b"), measurement("slow", runs=1, warmups=0)],
        runs=3,
        warmups=1,
        progress=told.append,
    )

    assert order == ["a", "b", "a", "b", "slow", "b", "a", "a", "b"]
    assert [(one.target, one.values) for one in series] == [
        ("a", (3.0, 7.0, 8.0)),
        ("b", (4.0, 6.0, 9.0)),
        ("slow", (5.0,)),
    ]
    assert told == ["round 1 of 3", "round 2 of 3", "round 3 of 3"]


def test_nothing_to_measure_is_no_error() -> None:
    assert interleave([], runs=3, warmups=1) == []
