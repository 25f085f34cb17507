"""The log: its checkpoints, and which of them are on the chain."""

from api.rest.views import time_text
from api.studio.asked import Asked, PageView
from engine.evidence.published import published

CHECKPOINTS = 50


def state(asked: Asked) -> PageView:
    """How far the log is, and how far that is anchored."""
    deployment, ready = asked.engine.deployment, asked.engine.ready()
    data = {
        "log": {
            "origin": deployment.origin,
            "id": "0x" + deployment.log_id.hex(),
            "verifier_key": deployment.log_verifier_key,
            "anchors": deployment.anchors,
            "chain": deployment.chain,
            "records": ready["records"],
            "anchored": ready["anchored"],
        },
        "checkpoints": [
            {
                "size": each.size,
                "root": "0x" + each.root.hex(),
                "signed_at": time_text(each.created_ms),
                "state": each.state or "not anchored",
                "tx_hash": None if each.tx_hash is None else "0x" + each.tx_hash.hex(),
                "block": each.block_number,
            }
            for each in published(asked.engine.database, CHECKPOINTS)
        ],
    }
    return PageView("log.html", "Log", data)
