"""Sums of the first so many of a growing list of amounts.

A binary indexed tree (P. Fenwick, "A new data structure for cumulative frequency tables", 1994):
node n holds the sum of the amounts (n - lowest set bit of n, n], counted from one. It is here so
that a denial can say when a window frees enough without walking through the window.
"""

from collections.abc import Iterable


class PrefixSums:
    """Amounts of zero or more, by index from zero; append is amortised O(1), the rest O(log n)."""

    __slots__ = ("_nodes",)

    def __init__(self, amounts: Iterable[int] = ()) -> None:
        self._nodes = [0]  # node zero is never read as a sum; it makes the others count from one
        for amount in amounts:
            self.append(amount)

    def append(self, amount: int) -> None:
        """Add one amount at the end."""
        nodes = self._nodes
        node = len(nodes)
        start = node & (node - 1)
        below = node - 1
        while below > start:
            amount += nodes[below]
            below &= below - 1
        nodes.append(amount)

    def subtract(self, index: int, amount: int) -> None:
        """Make the amount at `index` smaller by `amount`."""
        nodes = self._nodes
        node = index + 1
        while node < len(nodes):
            nodes[node] -= amount
            node += node & -node

    def first(self, count: int) -> int:
        """The sum of the first `count` amounts."""
        total = 0
        while count:
            total += self._nodes[count]
            count &= count - 1
        return total

    def reach(self, total: int) -> int:
        """The index of the amount with which the running sum first reaches `total` (1 or more).

        The number of amounts if it never does.
        """
        nodes = self._nodes
        count = 0
        step = 1 << len(nodes).bit_length()
        while step := step >> 1:
            node = count + step
            if node < len(nodes) and nodes[node] < total:
                total -= nodes[node]
                count = node
        return count
