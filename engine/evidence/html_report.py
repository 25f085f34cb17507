"""The facts of a verification as one HTML page, for people who read rather than parse.

The page is made of `engine.audit.statement` and of nothing else, so it says what the JSON says. It
has no script and loads nothing. Every value passes through MarkupSafe, which escapes it: markup is
only what stands in this file.

    page = render(statement(examination), "evidence.json")
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from engine.audit.canonical import encode
from engine.audit.report import counted
from engine.evidence import html_parts as html

__all__ = ["render"]

_STYLE = Path(__file__).with_name("report.css")
_VERDICTS = {
    "verified": (
        "Verified",
        "Every check holds: the session existed with these parameters, and every payment follows.",
    ),
    "tampered": (
        "Tampered",
        (
            "Something was changed, made up or left out, or the session's key moved what no record "
            "allows. Do not rely on this file."
        ),
    ),
    "pending": ("Pending", "Nothing contradicts the file, but a part of it is not proven yet."),
    "unavailable": ("Unavailable", "The chain could not be asked, so nothing is said either way."),
    "unbindable": (
        "Unbindable",
        (
            "The chain tells of something that left the session's key, and nobody can say from "
            "here whether a record would have to account for it."
        ),
    ),
}
_CONSENTS = {
    "none": "nobody signed; the operator vouches for the parameters",
    "delegated": "delegated from another session",
    "eip712": "signed by the owner's wallet",
    "erc1271": "accepted by the owner's wallet contract",
    "passkey": "signed with the owner's passkey",
}
_LIMITS = {
    "per_transaction": "One payment",
    "per_day": "Any 24 hours",
    "per_week": "Any 7 days",
    "per_month": "Any 30 days",
    "approval_above": "Without an approval",
}


def render(said: Mapping[str, Any], file_name: str) -> str:
    """The page for the statement of a file of that name."""
    session, chain, history = said["session"], said["chain"], said["history"]
    parts = [
        _head(said, history, file_name),
        _checks(said["checks"]),
        _granted(session) if session else _not_retold("What was granted"),
        _limits(session, history) if session else Markup(),
        _on_chain(chain) if chain else Markup(),
        Markup() if said["networks"] is None else _moved(said),
        *(_happened(history) if history else (_not_retold("What happened"),)),
        html.section("What is not proven", html.bullets(said["not_proven"])),
    ]
    page = Markup(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        "<title>{}: {}</title>\n<style>\n{}</style>\n</head>\n<body>\n{}\n"
        "<footer>Made by <code>tallystick verify</code> from the file and the chain alone. "
        "Times are UTC, amounts US dollars.</footer>\n</body>\n</html>\n"
    )
    style = Markup(_STYLE.read_text())  # noqa: S704 (ours, beside this file)
    return page.format(_VERDICTS[said["verdict"]][0], file_name, style, Markup("\n").join(parts))


def _head(said: Mapping[str, Any], history: Mapping[str, Any] | None, file_name: str) -> Markup:
    word, meaning = _VERDICTS[said["verdict"]]
    about = Markup("<span>{}</span>").format(file_name)
    title = "Spending session"
    if history is not None:
        hidden = "label" in history["withheld"]
        title = "Label withheld" if hidden else history["label"] or title
        about = Markup("{} session <span>{}</span>, {}").format(
            history["type"].capitalize(), history["session_id"], about
        )
    why = said["reason"] if said["exit_code"] else _sums(history)
    return Markup(
        '<header>\n<h1>{}</h1>\n<p class="about">{}</p>\n'
        '<div class="verdict {}"><strong>{}</strong><p>{}</p><p>{}</p>'
        "<small>Exit status {}</small></div>\n</header>"
    ).format(title, about, said["verdict"], word, meaning, why, said["exit_code"])


def _sums(history: Mapping[str, Any] | None) -> str:
    if history is None:
        return ""
    totals = history["totals"]
    return (
        f"{counted(totals['decisions'], 'decision')}: {totals['allowed']} allowed, "
        f"{totals['denied']} denied. "
        f"{html.amount_text(totals['captured_micro_usd'])} captured, "
        f"{html.amount_text(totals['held_micro_usd'])} held."
    )


def _checks(checks: Iterable[Mapping[str, Any]]) -> Markup:
    rows = [
        (
            check["number"],
            check["name"],
            Markup('<span class="tone {}">{}</span>').format(
                check["verdict"], check["verdict"].replace("_", " ")
            ),
            check["reason"],
        )
        for check in checks
    ]
    return html.section("Checks", html.table(("", "Check", "Result", "Why"), rows))


def _granted(session: Mapping[str, Any]) -> Markup:
    agent, workspace = session["agent_id"], session["workspace"]
    begins, ends = (
        html.time_text(session["valid_from_ms"]),
        html.time_text(session["valid_until_ms"]),
    )
    sentences = [
        f"The agent {agent} may spend for the workspace {workspace}.",
        f"It may do so from {begins} until just before {ends}.",
        _one_of("It may pay", session["merchants"], "any merchant"),
        _one_of("It may pay with", session["tokens"], "any token that has a price"),
        _one_of("It may pay on", session["chains"], "any chain"),
        _one_of("It may do this:", session["permissions"], "anything"),
        *(f"Condition: {condition}." for condition in session["conditions"]),
    ]
    facts = [
        ("Owner", html.code(session["owner"])),
        ("Consent", f"{_CONSENTS[session['consent']]} ({session['consent']})"),
        ("Session key", html.code(session["session_key"])),
        ("Token id", html.code(session["token_id"])),
        ("Grant hash", html.code(session["grant_hash"])),
        *(("Delegated from", html.code(above)) for above in session["delegated_from"]),
    ]
    return html.section("What was granted", html.bullets(sentences) + html.facts(facts))


def _limits(session: Mapping[str, Any], history: Mapping[str, Any] | None) -> Markup:
    lowered = session["limits_lowered"]
    largest = {} if history is None else history["largest_sum_micro_usd"]
    heads = ["Limit", "Granted"]
    heads += [f"From block {lowering['block_number']}" for lowering in lowered]
    rows = [
        [
            words,
            *(html.amount(each["limits_micro_usd"][name]) for each in (session, *lowered)),
            html.amount(largest[name]) if name in largest else "",
        ]
        for name, words in _LIMITS.items()
    ]
    table = html.table((*heads, "Largest sum reached"), rows)
    notes = [
        Markup("Lowered on the chain at {}, in block {}, transaction {}").format(
            html.time_text(each["time_ms"]), each["block_number"], html.code(each["tx_hash"])
        )
        for each in lowered
    ]
    return html.section("Limits", table + (html.bullets(notes) if notes else Markup()))


def _on_chain(chain: Mapping[str, Any]) -> Markup:
    facts = [
        ("Chain", f"{chain['chain_id']}, as of block {chain['as_of_block']}"),
        ("Session registry", html.code(chain["registry"])),
        ("Anchor registry", html.code(chain["anchor_registry"])),
        ("Audit log", Markup("{} {}").format(chain["log_origin"], html.code(chain["log_id"]))),
        ("Registered", _place(chain["registered"])),
        ("Revoked", _place(chain["revoked"])),
        ("Workspace closed", _place(chain["workspace_closed"])),
    ]
    anchors = [
        (
            html.number(each["size"]),
            html.code(each["root"]),
            html.number(each["block_number"]),
            html.code(each["tx_hash"] or ""),
        )
        for each in chain["anchors"]
    ]
    table = html.table(("Log size", "Root", "Block", "Transaction"), anchors)
    return html.section("On the chain", html.facts(facts)) + html.section(
        "Anchors of the log", table
    )


def _moved(said: Mapping[str, Any]) -> Markup:
    """What left the session's key on every chain that was asked."""
    asked = [f"{each['network']}, as of block {each['as_of_block']}" for each in said["networks"]]
    incidents = [
        (
            Markup("{}<small>{}</small>").format(each["kind"], each["verdict"]),
            _on_network(each),
            Markup("{}<small>{}</small>").format(
                "" if each["amount"] is None else each["amount"], each["to"] or ""
            ),
            html.code(each["nonce"] or ""),
            Markup("{}<small>{}</small>").format(each["count"], each["payment"] or ""),
        )
        for each in said["incidents"]
    ]
    parts = html.section("Chains that were asked", html.bullets(asked))
    if incidents:
        table = html.table(
            ("Incident", "Where", "Amount and payee", "Nonce", "Number and payment"), incidents
        )
        parts += html.section("Incidents: no record allows this", table)
    settlements = [
        (
            Markup("{}<small>{}</small>").format(each["payment"], each["state"]),
            _on_network(each),
            Markup("{}<small>{}</small>").format(each["amount"], each["to"]),
            html.code(each["nonce"]),
        )
        for each in said["settlements"] or ()
    ]
    if settlements:
        table = html.table(("Payment", "Where", "Amount and payee", "Nonce"), settlements)
        parts += html.section("Settlements of signed payments", table)
    return parts


def _on_network(told: Mapping[str, Any]) -> Markup:
    """The network and contract of an event, and its place where it is known."""
    place = ""
    if told["block_number"] is not None:
        place = f"block {told['block_number']}"
        if told.get("log_index") is not None:
            place += f", log index {told['log_index']}"
    return Markup("{}<small>{}</small><small>{}</small><small>{}</small>").format(
        told["network"], told["contract"] or "", place, told["tx_hash"] or ""
    )


def _happened(history: Mapping[str, Any]) -> tuple[Markup, ...]:
    counts = history["records"]
    life = [
        (
            html.time(each["time_ms"]),
            Markup("{}<small>{}</small>").format(_word(each["what"]), each["what"]),
            each["state"] or "",
            _proof(each),
        )
        for each in history["life"]
    ]
    said = f"Records anchored: {counts['anchored']}, not anchored yet: {counts['not_anchored']}."
    if history["withheld"]:
        said += f" Withheld in all of them: {', '.join(history['withheld'])}."
    parts = [
        html.section(
            "Life of the session",
            Markup("<p>{}</p>").format(said) + html.table(("Time", "What", "State", "Proof"), life),
        )
    ]
    if history["approvals"]:
        rows = [
            (
                html.time(each["time_ms"]),
                Markup("{}<small>{}</small>").format(_word(each["what"]), each["what"]),
                Markup("{}<small>{}</small>").format(each["approval"], each["key"] or ""),
                _proof(each),
            )
            for each in history["approvals"]
        ]
        table = html.table(("Time", "What", "Approval and key", "Proof"), rows)
        parts.append(html.section("Approvals", table))
    heads = ("Decided", "Merchant", "Amount", "Decision", "Outcome", "Proof")
    table = html.table(heads, [_payment(each, history["withheld"]) for each in history["payments"]])
    parts.append(html.section("Payments", Markup("<p>{}</p>").format(_sums(history)) + table))
    if history["discrepancies"]:
        parts.append(_discrepancies(history["discrepancies"]))
    return tuple(parts)


def _discrepancies(noted: Iterable[Mapping[str, Any]]) -> Markup:
    """What the operator's server noted; its details have no fixed form, so they are JSON."""
    rows = [
        (
            Markup("{}<small>{}</small>").format(each["kind"], each["severity"]),
            html.time(each["first_seen_ms"]),
            html.time(each["last_seen_ms"]),
            "open" if each["resolved_ms"] is None else html.time(each["resolved_ms"]),
            "withheld"
            if each["evidence"] is None
            else html.code(encode(each["evidence"]).decode()),
        )
        for each in noted
    ]
    heads = ("What", "First seen", "Last seen", "Resolved", "Details")
    return html.section("Discrepancies that the operator's server noted", html.table(heads, rows))


def _details(evidence: Mapping[str, Any] | None) -> str | Markup:
    return "withheld" if evidence is None else html.code(encode(evidence).decode())


def _payment(payment: Mapping[str, Any], withheld: Sequence[str]) -> Sequence[Any]:
    outcome = Markup("{}").format(payment["state"])
    if payment["allowed"]:
        captured = html.amount_text(payment["captured_micro_usd"])
        outcome += Markup("<small>captured {}</small>").format(captured)
    if payment["signed_ms"] is not None:
        outcome += Markup("<small>signed {}</small>").format(html.time_text(payment["signed_ms"]))
    proof = _proof(payment)
    if payment["ended_ms"] is not None:
        outcome += Markup("<small>{}</small>").format(html.time_text(payment["ended_ms"]))
        proof += Markup("<small>ended by record {}, {}</small>").format(
            payment["ended_by_record"], _anchored(payment["ended_anchored"])
        )
    decision = Markup("{}<small>{}</small><small>{}</small>").format(
        "allowed" if payment["allowed"] else "denied", payment["code"], payment["reason"] or ""
    )
    if payment["approval"]:
        decision += Markup("<small>{}</small>").format(payment["approval"])
    return (
        Markup("{}<small>{}</small>").format(html.time(payment["time_ms"]), payment["payment"]),
        Markup("{}<small>{}</small><small>{}</small>").format(
            "withheld" if "merchant" in withheld else payment["merchant"] or "none named",
            payment["permission"],
            payment["token"],
        ),
        html.amount(payment["amount_micro_usd"]),
        decision,
        outcome,
        proof,
    )


def _proof(told: Mapping[str, Any]) -> Markup:
    return Markup("{}<small>record {}, log index {}</small>").format(
        _anchored(told["anchored"]), told["record"], told["log_index"]
    )


def _anchored(anchored: bool) -> str:
    return "anchored" if anchored else "not anchored yet"


def _place(told: Mapping[str, Any] | None) -> str | Markup:
    if told is None:
        return "no"
    when = f" at {html.time_text(told['time_ms'])}" if "time_ms" in told else ""
    if told.get("log_index") is not None:
        when = f", log index {told['log_index']}"
    return Markup("in block {}{}, transaction {}").format(
        told["block_number"], when, html.code(told["tx_hash"])
    )


def _one_of(begin: str, names: Sequence[str], anything: str) -> str:
    return f"{begin} {', '.join(names) if names else anything}."


def _word(kind: str) -> str:
    return kind.rpartition(".")[2].capitalize()


def _not_retold(title: str) -> Markup:
    return html.section(
        title,
        Markup("<p>Not retold: a check that would have to vouch for it does not hold.</p>"),
    )
