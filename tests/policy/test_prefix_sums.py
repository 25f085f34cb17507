from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from engine.policy.prefix_sums import PrefixSums

AMOUNTS = st.lists(st.integers(0, 5), max_size=40)


@given(AMOUNTS, st.data())
def test_sums_are_those_of_the_list(amounts: list[int], data: st.DataObject) -> None:
    sums = PrefixSums(amounts)
    for _ in range(data.draw(st.integers(0, 5)) if amounts else 0):
        index = data.draw(st.integers(0, len(amounts) - 1))
        less = data.draw(st.integers(0, amounts[index]))
        amounts[index] -= less
        sums.subtract(index, less)
        more = data.draw(st.integers(0, 5))
        amounts.append(more)
        sums.append(more)
    running = [0, *accumulate(amounts)]
    assert [sums.first(count) for count in range(len(running))] == running
    for total in range(1, running[-1] + 2):
        reached = [index for index, value in enumerate(running[1:]) if value >= total]
        assert sums.reach(total) == (reached[0] if reached else len(amounts))
