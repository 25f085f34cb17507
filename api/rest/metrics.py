"""The installation as Prometheus sees it. No label comes from a caller, and none names anybody."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from engine.engine import Engine
from engine.reconcile.kinds import KINDS


def exposition(engine: Engine, accept: str) -> tuple[bytes, str]:
    """The metrics in the format that `accept` asks for, and its media type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Installation(engine))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Installation(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        yield self._discrepancies()
        yield from self._chain()
        yield from self._networks()
        yield from self._reconciled()
        yield from self._log()
        yield self._decisions()

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def _discrepancies(self) -> Metric:
        family = GaugeMetricFamily(
            "tallystick_discrepancies_open",
            "Open discrepancies, all workspaces together",
            labels=("kind", "severity"),
        )
        counts = Counter(found.kind for found in self._engine.reconciler.open())
        for kind in KINDS.values():
            family.add_metric((kind.name, kind.severity), counts[kind.name])
        return family

    def _chain(self) -> Iterator[Metric]:
        position = self._engine.lead.position()
        for name, meaning, value in (
            (
                "head_block",
                "Newest block of the chain when it was last asked",
                position.head_number,
            ),
            ("indexed_block", "Newest block that the index holds", position.indexed_number),
            ("lag_blocks", "Blocks between the two", position.lag),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"tallystick_chain_{name}", meaning, value)
        yield from self._endpoints()

    def _endpoints(self) -> Iterator[Metric]:
        """Of several endpoints: by number in the setting, and host, since two may have the same."""
        answers = GaugeMetricFamily(
            "tallystick_chain_endpoint_answers",
            "1 if the endpoint answers and keeps up, else 0",
            labels=("number", "endpoint"),
        )
        compared = GaugeMetricFamily(
            "tallystick_chain_endpoint_compared_block",
            "Newest block in which the endpoint says the same as the index",
            labels=("number", "endpoint"),
        )
        for each in self._engine.lead.endpoints():
            labels = (str(each.number), each.chain.name)
            answers.add_metric(labels, int(each.trouble is None))
            if each.compared_number is not None:
                compared.add_metric(labels, each.compared_number)
        if answers.samples:
            yield from (answers, compared)

    def _networks(self) -> Iterator[Metric]:
        states = self._engine.ready()["networks"]
        for name, meaning, field in (
            ("heard", "1 if the chain answered when it was last asked, else 0", "heard"),
            ("head_block", "Newest block of the chain when it was last asked", "head_block"),
            ("lag_blocks", "Blocks that were not read for payments yet", "lag_blocks"),
            ("payments_open", "Signed payments whose end is not known yet", "open"),
        ):
            family = GaugeMetricFamily(f"tallystick_network_{name}", meaning, labels=("chain",))
            for state in states:
                if state[field] is not None:
                    family.add_metric((state["chain"],), int(state[field]))
            yield family

    def _reconciled(self) -> Iterator[Metric]:
        last = self._engine.reconciler.last
        if last is not None:
            yield GaugeMetricFamily(
                "tallystick_reconciled_block",
                "Newest block that was compared with the ledger",
                last.block.number,
            )
            yield GaugeMetricFamily(
                "tallystick_reconciled_timestamp_seconds",
                "When this server last compared ledger and chain, Unix time",
                last.made_ms / 1000,
            )

    def _log(self) -> Iterator[Metric]:
        state = self._engine.ready()
        for name, meaning, size in (
            ("tallystick_log_records", "Records in the log", state["records"]),
            (
                "tallystick_log_anchored_records",
                "Records under the newest anchor that is mined",
                state["anchored"],
            ),
        ):
            if size is not None:  # else the database does not say
                yield GaugeMetricFamily(name, meaning, size)
        yield GaugeMetricFamily(
            "tallystick_ready", "1 if decisions can be made, else 0", int(state["ready"])
        )

    def _decisions(self) -> Metric:
        family = CounterMetricFamily(
            "tallystick_decisions",
            "Decisions on payments since this server started, by all servers of the database",
            labels=("code",),
        )
        for code, count in sorted(self._engine.decision_counts.since_start().items()):
            family.add_metric((code,), count)
        return family
