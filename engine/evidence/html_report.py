"""The facts of a verification as one HTML page, for people who read rather than parse.

The page is made of `engine.audit.statement` and of nothing else, so it says what the JSON says. It
has no script and loads nothing. Every value passes through MarkupSafe, which escapes it: markup is
only what stands in this file.

    page = render(statement(examination), "evidence.json")
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from engine.audit.canonical import encode
from engine.policy.money import format_usd

__all__ = ["amount_text", "render", "time_text"]

_STYLE = Path(__file__).with_name("report.css")
_VERDICTS = {
    "verified": (
        "Verified",
        "Every check holds: the session existed with these parameters, and every payment follows.",
    ),
    "tampered": (
        "Tampered",
        "Something was changed, made up or left out. Do not rely on this file.",
    ),
    "pending": ("Pending", "Nothing contradicts the file, but a part of it is not proven yet."),
    "unavailable": ("Unavailable", "The chain could not be asked, so nothing is said either way."),
    "unbindable": (
        "Unbindable",
        "The session's key moved something on the chain that no record in the file accounts for.",
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
        *(_happened(history) if history else (_not_retold("What happened"),)),
        _section("What is not proven", _list(said["not_proven"])),
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


def time_text(time_ms: int) -> str:
    """A time for people, to the second where it is one: `2026-11-21 22:43:26`."""
    moment = datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{moment}.{time_ms % 1000:03}" if time_ms % 1000 else moment


def amount_text(micro_usd: int | None) -> str:
    """An amount for people; a limit that is None is not there."""
    return "no limit" if micro_usd is None else format_usd(micro_usd)


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
        f"{totals['decisions']} decisions: {totals['allowed']} allowed, {totals['denied']} denied. "
        f"{amount_text(totals['captured_micro_usd'])} captured, "
        f"{amount_text(totals['held_micro_usd'])} held."
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
    return _section("Checks", _table(("", "Check", "Result", "Why"), rows))


def _granted(session: Mapping[str, Any]) -> Markup:
    agent, workspace = session["agent_id"], session["workspace"]
    begins, ends = time_text(session["valid_from_ms"]), time_text(session["valid_until_ms"])
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
        ("Owner", _code(session["owner"])),
        ("Consent", f"{_CONSENTS[session['consent']]} ({session['consent']})"),
        ("Session key", _code(session["session_key"])),
        ("Token id", _code(session["token_id"])),
        ("Grant hash", _code(session["grant_hash"])),
        *(("Delegated from", _code(above)) for above in session["delegated_from"]),
    ]
    return _section("What was granted", _list(sentences) + _facts(facts))


def _limits(session: Mapping[str, Any], history: Mapping[str, Any] | None) -> Markup:
    lowered = session["limits_lowered"]
    largest = {} if history is None else history["largest_sum_micro_usd"]
    heads = ["Limit", "Granted"]
    heads += [f"From block {lowering['block_number']}" for lowering in lowered]
    rows = [
        [
            words,
            *(_amount(each["limits_micro_usd"][name]) for each in (session, *lowered)),
            _amount(largest[name]) if name in largest else "",
        ]
        for name, words in _LIMITS.items()
    ]
    table = _table((*heads, "Largest sum reached"), rows)
    notes = [
        Markup("Lowered on the chain at {}, in block {}, transaction {}").format(
            time_text(each["time_ms"]), each["block_number"], _code(each["tx_hash"])
        )
        for each in lowered
    ]
    return _section("Limits", table + (_list(notes) if notes else Markup()))


def _on_chain(chain: Mapping[str, Any]) -> Markup:
    facts = [
        ("Chain", f"{chain['chain_id']}, as of block {chain['as_of_block']}"),
        ("Session registry", _code(chain["registry"])),
        ("Anchor registry", _code(chain["anchor_registry"])),
        ("Audit log", Markup("{} {}").format(chain["log_origin"], _code(chain["log_id"]))),
        ("Registered", _place(chain["registered"])),
        ("Revoked", _place(chain["revoked"])),
        ("Workspace closed", _place(chain["workspace_closed"])),
    ]
    anchors = [
        (
            _number(each["size"]),
            _code(each["root"]),
            _number(each["block_number"]),
            _code(each["tx_hash"] or ""),
        )
        for each in chain["anchors"]
    ]
    table = _table(("Log size", "Root", "Block", "Transaction"), anchors)
    return _section("On the chain", _facts(facts)) + _section("Anchors of the log", table)


def _happened(history: Mapping[str, Any]) -> tuple[Markup, ...]:
    counts = history["records"]
    life = [
        (
            _time(each["time_ms"]),
            Markup("{}<small>{}</small>").format(_word(each["what"]), each["what"]),
            each["state"] or "",
            _proof(each),
        )
        for each in history["life"]
    ]
    said = f"{counts['anchored']} records are anchored, {counts['not_anchored']} are not yet."
    if history["withheld"]:
        said += f" Withheld in all of them: {', '.join(history['withheld'])}."
    parts = [
        _section(
            "Life of the session",
            Markup("<p>{}</p>").format(said) + _table(("Time", "What", "State", "Proof"), life),
        )
    ]
    if history["approvals"]:
        rows = [
            (
                _time(each["time_ms"]),
                Markup("{}<small>{}</small>").format(_word(each["what"]), each["what"]),
                Markup("{}<small>{}</small>").format(each["approval"], each["key"] or ""),
                _proof(each),
            )
            for each in history["approvals"]
        ]
        table = _table(("Time", "What", "Approval and key", "Proof"), rows)
        parts.append(_section("Approvals", table))
    heads = ("Decided", "Merchant", "Amount", "Decision", "Outcome", "Proof")
    table = _table(heads, [_payment(each, history["withheld"]) for each in history["payments"]])
    parts.append(_section("Payments", Markup("<p>{}</p>").format(_sums(history)) + table))
    if history["discrepancies"]:
        parts.append(_discrepancies(history["discrepancies"]))
    return tuple(parts)


def _discrepancies(noted: Iterable[Mapping[str, Any]]) -> Markup:
    """What the operator's server noted; its details have no fixed form, so they are JSON."""
    rows = [
        (
            Markup("{}<small>{}</small>").format(each["kind"], each["severity"]),
            _time(each["first_seen_ms"]),
            _time(each["last_seen_ms"]),
            "open" if each["resolved_ms"] is None else _time(each["resolved_ms"]),
            "withheld" if each["evidence"] is None else _code(encode(each["evidence"]).decode()),
        )
        for each in noted
    ]
    heads = ("What", "First seen", "Last seen", "Resolved", "Details")
    return _section("Discrepancies that the operator's server noted", _table(heads, rows))


def _payment(payment: Mapping[str, Any], withheld: Sequence[str]) -> Sequence[Any]:
    outcome = Markup("{}").format(payment["state"])
    if payment["allowed"]:
        captured = amount_text(payment["captured_micro_usd"])
        outcome += Markup("<small>captured {}</small>").format(captured)
    proof = _proof(payment)
    if payment["ended_ms"] is not None:
        outcome += Markup("<small>{}</small>").format(time_text(payment["ended_ms"]))
        proof += Markup("<small>ended by record {}, {}</small>").format(
            payment["ended_by_record"], _anchored(payment["ended_anchored"])
        )
    decision = Markup("{}<small>{}</small><small>{}</small>").format(
        "allowed" if payment["allowed"] else "denied", payment["code"], payment["reason"] or ""
    )
    if payment["approval"]:
        decision += Markup("<small>{}</small>").format(payment["approval"])
    return (
        Markup("{}<small>{}</small>").format(_time(payment["time_ms"]), payment["payment"]),
        Markup("{}<small>{}</small><small>{}</small>").format(
            "withheld" if "merchant" in withheld else payment["merchant"] or "none named",
            payment["permission"],
            payment["token"],
        ),
        _amount(payment["amount_micro_usd"]),
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
    when = f" at {time_text(told['time_ms'])}" if "time_ms" in told else ""
    if told.get("log_index") is not None:
        when = f", log index {told['log_index']}"
    return Markup("in block {}{}, transaction {}").format(
        told["block_number"], when, _code(told["tx_hash"])
    )


def _one_of(begin: str, names: Sequence[str], anything: str) -> str:
    return f"{begin} {', '.join(names) if names else anything}."


def _word(kind: str) -> str:
    return kind.rpartition(".")[2].capitalize()


def _not_retold(title: str) -> Markup:
    return _section(
        title,
        Markup("<p>Not retold: a check that would have to vouch for it does not hold.</p>"),
    )


def _section(title: str, content: Markup) -> Markup:
    return Markup('<section class="{}">\n<h2>{}</h2>\n{}\n</section>').format(
        title.partition(" ")[0].lower(), title, content
    )


def _facts(facts: Iterable[tuple[str, Any]]) -> Markup:
    rows = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(*fact) for fact in facts)
    return Markup("<dl>{}</dl>").format(rows)


def _list(items: Iterable[Any]) -> Markup:
    rows = Markup("").join(Markup("<li>{}</li>").format(item) for item in items)
    return Markup("<ul>{}</ul>").format(rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markup:
    """A table; what stands above amounts is aligned as they are."""
    plain, amount = Markup("<th>{}</th>"), Markup('<th class="amount">{}</th>')
    top = Markup("").join(
        (amount if any(isinstance(row[place], _Cell) for row in rows) else plain).format(head)
        for place, head in enumerate(heads)
    )
    body = Markup("\n").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                cell if isinstance(cell, _Cell) else Markup("<td>{}</td>").format(cell)
                for cell in row
            )
        )
        for row in rows
    )
    return Markup("<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>").format(
        top, body
    )


class _Cell(Markup):
    """A whole cell of a table."""


def _amount(micro_usd: int | None) -> _Cell:
    return _Cell('<td class="amount">{}</td>').format(amount_text(micro_usd))


def _number(value: int) -> _Cell:
    return _Cell('<td class="amount">{}</td>').format(value)


def _time(time_ms: int) -> Markup:
    return Markup('<span class="time">{}</span>').format(time_text(time_ms))


def _code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)
