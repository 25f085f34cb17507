"""An evidence file is verified in the page of the log, which says whose word that is."""

import hashlib
import json
from html import unescape
from typing import Any

import httpx
import pytest

from api.studio.uploads import FILE_BYTES_MAX
from tests.evidence.story import pass_time
from tests.studio.conftest import Opened
from tests.studio.visitor import Visitor
from tests.world import USD

LOG = "/studio/log"


def bring(
    visitor: Visitor, file: bytes, *, to: str = LOG, name: str = "evidence.json", **how: Any
) -> httpx.Response:
    """Send the form with a file, as browsers do."""
    fields = visitor.form(LOG, LOG).fields
    data, files = how.pop("data", fields), {how.pop("field", "evidence"): (name, file)}
    return visitor.ask("POST", to, data=data, files=files, **how)


@pytest.fixture(scope="module")
def evidence(studio: Opened) -> bytes:
    """Of a session that paid, on a chain that is as late as the server."""
    pass_time(studio.world, studio.clock, 3_600_000)
    view = studio.world.session(mint_pkp=True, label="audited")
    studio.world.pay(view, 7)
    studio.world.engine.anchor()
    file = studio.visitor("auditor").get(f"/studio/sessions/{view.id}/evidence")
    name = f'attachment; filename="evidence-{view.id}.json"'
    assert (file.status_code, file.headers["content-disposition"]) == (200, name)
    assert file.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert file.headers["x-content-type-options"] == "nosniff"
    return file.content


def test_the_page_has_the_numbered_checks_the_verdict_and_whose_word_it_is(
    studio: Opened, evidence: bytes
) -> None:
    visitor, deployment = studio.visitor("auditor"), studio.world.engine.deployment
    page = bring(visitor, evidence)
    text = unescape(page.text)
    assert page.status_code == 200
    for said in (
        "It holds: verified.",
        "This is the word of this server.",
        f"tallystick verify evidence.json --rpc URL --registry {deployment.registry}",
        "that runs within itself",
        hashlib.sha256(evidence).hexdigest(),
    ):
        assert said in text, said
    told = bring(visitor, evidence, to=f"{LOG}.json").json()["verification"]
    assert (told["verdict"], told["registry"]) == ("verified", deployment.registry)
    assert [check["number"] for check in told["checks"]] == list(range(1, 14))
    for check in told["checks"]:
        assert f'<td class="num">{check["number"]}</td><td>{check["name"]}</td>' in page.text
        assert check["reason"] in text
    assert told["not_proven"]
    for line in told["not_proven"]:
        assert line in text
    assert visitor.get(f"{LOG}.json").json()["verification"] is None


def test_what_was_changed_and_what_is_no_evidence_does_not_hold(
    studio: Opened, evidence: bytes
) -> None:
    visitor = studio.visitor("auditor")
    hostile = '<script>alert(1)</script>"><img src=x onerror=alert(1)>.json'
    for file, check in (
        (evidence.replace(str(7 * USD).encode(), str(6 * USD).encode()), "seal"),
        (evidence[:-1], "format"),
        (b"", "format"),
        (b"\x89PNG\r\n\x1a\n\x00\xff" * 99, "format"),
        (b"[" * 50_000, "format"),
        (json.dumps({"x": "<script>alert(1)</script>"}).encode(), "format"),
    ):
        assert file != evidence
        page = bring(visitor, file, name=hostile)
        assert page.status_code == 200
        assert "It does not hold: tampered." in page.text, file[:40]
        assert "<script>alert" not in page.text
        assert "<img" not in page.text.partition("<main")[2]
        told = bring(visitor, file, to=f"{LOG}.json").json()["verification"]
        assert (told["verdict"], told["reason"].partition(":")[0]) == ("tampered", check)


def test_a_file_is_taken_from_those_who_may_by_our_form_and_up_to_its_length(
    studio: Opened, evidence: bytes
) -> None:
    visitor = studio.visitor("auditor")
    for to in (LOG, f"{LOG}.json"):
        assert bring(visitor, evidence, to=to, origin="http://evil.test").status_code == 403
        assert bring(visitor, evidence, to=to, data={"csrf": "0" * 64}).status_code == 403
        assert bring(visitor, evidence, to=to, data={}).status_code == 403
        for how in ({"field": "another"}, {"name": ""}):
            refused = bring(visitor, evidence, to=to, **how)
            assert (refused.status_code, "choose a file" in refused.text) == (422, True)
        csrf = visitor.form(LOG, LOG).fields
        for headers, body in (
            ({"Content-Type": "multipart/form-data; boundary=x"}, b"--y\r\n\r\n"),
            ({"Content-Type": "multipart/form-data"}, evidence),
            ({"Content-Type": "application/json"}, evidence),
        ):
            refused = visitor.ask("POST", to, content=body, headers=headers)
            assert refused.status_code == 422, headers
        two = [("evidence", ("a", evidence)), ("evidence", ("b", evidence))]
        assert visitor.ask("POST", to, data=csrf, files=two).status_code == 422
        longest = bring(visitor, b" " * FILE_BYTES_MAX, to=to)
        assert (longest.status_code, "tampered" in longest.text) == (200, True)
        longer = bring(visitor, b" " * (FILE_BYTES_MAX + 65_536), to=to)
        assert (longer.status_code, "body_too_large" in longer.text) == (413, True)
        for role in ("approver", "viewer"):
            nobody = studio.visitor(role)
            assert nobody.ask("POST", to, files={"evidence": ("a", evidence)}).status_code == 403
        anybody = studio.visitor().ask("POST", to, files={"evidence": ("a", evidence)})
        assert anybody.status_code == 401
