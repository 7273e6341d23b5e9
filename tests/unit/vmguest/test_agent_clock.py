from vmguest.agent import clock


def test_a_clock_that_is_off_is_stepped() -> None:
    set_to: list[int] = []

    assert clock.follow(10_000_000_000, read=lambda: 1_000_000_000, step=set_to.append)
    assert set_to == [10_000_000_000]


def test_a_clock_that_is_nearly_right_is_left_alone() -> None:
    set_to: list[int] = []

    assert not clock.follow(1_400_000_000, read=lambda: 1_000_000_000, step=set_to.append)
    assert set_to == []
