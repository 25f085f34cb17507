"""The log: its checkpoints, which of them are on the chain, and verifying evidence of it."""

import hashlib
from typing import Any

from api.rest.verifying import verified_here
from api.rest.views import time_text
from api.studio.asked import Asked, PageView
from api.studio.uploads import FILE_BYTES_MAX
from engine.evidence.published import published

CHECKPOINTS = 50


def state(asked: Asked) -> PageView:
    """How far the log is, and how far that is anchored."""
    return _page(asked, None)


def verified(asked: Asked) -> PageView:
    """What becomes of an evidence file that somebody brings. That is this server's word, by the
    chain that it reads itself, and the page says so."""
    file = asked.uploaded
    told = {
        "file": {
            "name": file.name,
            "bytes": len(file.content),
            "sha256": hashlib.sha256(file.content).hexdigest(),
        },
        **verified_here(asked.engine, file.content),
    }
    return _page(asked, told)


def _page(asked: Asked, verification: dict[str, Any] | None) -> PageView:
    engine, deployment, ready = asked.engine, asked.engine.deployment, asked.engine.ready()
    data = {
        "log": {
            "origin": deployment.origin,
            "id": "0x" + deployment.log_id.hex(),
            "verifier_key": deployment.log_verifier_key,
            "anchors": deployment.anchors,
            "registry": deployment.registry,
            "chain": deployment.chain,
            "chain_is_embedded": engine.settings.chain == "embedded",
            "records": ready["records"],
            "anchored": ready["anchored"],
        },
        "file_bytes_max": FILE_BYTES_MAX,
        "verification": verification,
        "checkpoints": [
            {
                "size": each.size,
                "root": "0x" + each.root.hex(),
                "signed_at": time_text(each.created_ms),
                "state": each.state or "not anchored",
                "tx_hash": None if each.tx_hash is None else "0x" + each.tx_hash.hex(),
                "block": each.block_number,
            }
            for each in published(engine.database, CHECKPOINTS)
        ],
    }
    return PageView("log.html", "Log", data)
