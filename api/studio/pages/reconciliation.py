"""Whether ledger and chain say the same."""

from api.rest.reconciliation_answers import chain_json, discrepancy_json, reconciliation_json
from api.studio.asked import Asked, PageView


def state(asked: Asked) -> PageView:
    """What is open, and when was looked."""
    engine, who = asked.engine, asked.who
    last = engine.reconciler.last
    data = {
        "open": [
            discrepancy_json(found)
            for found in engine.reconciler.open()
            if found.workspace_id in (None, who.workspace_id)
        ],
        "last": None if last is None else reconciliation_json(last),
        "chain": chain_json(engine.lead.position()),
        "health": engine.ready(),
    }
    return PageView("reconciliation.html", "Reconciliation", data)
