"""One simulated history: a seed, a number of steps, and an auditor that follows each of them."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from engine.chain import contracts
from engine.errors import CannotStart, TallystickError, Unavailable
from engine.policy.budgets import BudgetLimits
from engine.sessions.session import SessionView
from tests.simulation.asking import answers_of, approval_in_words, short, submit
from tests.simulation.auditor import Auditor
from tests.simulation.books import Known, Question, Seen
from tests.simulation.faults import Crash
from tests.simulation.installation import CONFIRMATIONS, Asked, Installation
from tests.simulation.log import Finding
from tests.simulation.workload import AGENTS, TEMPERS, Wait, Workload
from tests.world import WORKSPACE

SESSIONS = 16
SILENCE_MAX_MS = 300_000
OWNER = "0x" + "22" * 20
ASKED_AGAIN_AT_THE_END = 200
STEPS = {
    "burst": 60,
    "look": 18,
    "operate": 14,
    "create": 4,
    "delegate": 4,
    "budget": 4,
    "revoke": 2,
    "restart": 1,
    "replace_key": 1,
}
OPERATORS = 4


class Stopped(Exception):
    """A finding, and the step at which it was made."""

    def __init__(self, step: int, finding: Finding) -> None:
        super().__init__(step, finding)
        self.step, self.finding = step, finding

    def __str__(self) -> str:
        return f"step {self.step}: {self.finding}"


@dataclass(frozen=True)
class Outcome:
    """What a history came to; `digest` is of all its answers and records, in order."""

    figures: Counter[str]
    digest: str


class History:
    """See the module; `run` it once."""

    def __init__(self, directory: Path, seed: int, number: int) -> None:
        self.draw = random.Random(f"{seed}/{number}")
        self.workload = Workload(self.draw, TEMPERS[number % len(TEMPERS)])
        self.installation = Installation(directory, random.Random(f"{seed}/{number}/engine"))
        self.auditor = Auditor(CONFIRMATIONS)
        self.figures = self.auditor.books.figures
        self.digest = hashlib.sha256()
        self.views: dict[str, SessionView] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.keys: list[str] = []
        self.read_ms: int | None = None
        self.tried_ms: int | None = None
        self.step = 0

    def run(self, decisions: int, steps: int | None = None) -> Outcome:
        """Go on for so many decisions, or steps, then look at everything once more.

        Raises:
            Stopped: by what the auditor found.
        """
        try:
            self._looked(whole=True)
            for _ in range(OPERATORS):
                self._replace_key()
            while self.figures["decisions"] < decisions if steps is None else self.step < steps:
                self.step += 1
                self._step()
            self._end()
        except Finding as finding:
            raise Stopped(self.step, finding) from finding
        except Exception as error:
            raise Stopped(self.step, Finding("defect", repr(error))) from error
        finally:
            with suppress(sa.exc.SQLAlchemyError):
                self.installation.close()
        self.figures["steps"] += self.step
        self.digest.update(self.auditor.books.log.digest.digest())
        return Outcome(self.figures, self.digest.hexdigest())

    def _step(self) -> None:
        while len(self.workload.sessions) < SESSIONS:
            self._create() if not self.views or self.draw.random() < 0.7 else self._delegate()
        moved_ms = self._pass_time()
        if self.draw.random() < self.workload.temper.faults:
            self.installation.faults.armed = self.workload.fault()
        if moved_ms > SILENCE_MAX_MS and self.draw.random() < 0.8:
            self._look()
        [kind] = self.draw.choices(list(STEPS), weights=list(STEPS.values()))
        # Whatever is at an edge is asked there and then: a millisecond later it is none.
        if self.workload.urgent is not None:
            kind = "operate"
        getattr(self, "_burst" if self.workload.focus is not None else f"_{kind}")()

    # Workers

    def _burst(self) -> None:
        burst = self.workload.burst()
        questions = [asked for _, asked in burst]
        known, armed = self._known(), self.installation.faults.armed
        try:
            with self.installation.writer.one_batch():
                futures = [
                    submit(self.installation.engine.ledger, group)
                    for group in self._groups(questions)
                ]
        except Crash:
            self._crashed(armed, lambda: self._report(questions, None, known))
            self.workload.unheard(burst)
            return
        answers = [answer for future in futures for answer in answers_of(future)]
        self.digest.update(repr([short(answer) for answer in answers]).encode())
        self.auditor.books.log.follow(self.installation.data_file)
        failed = [a for a in answers if a.get("error") == "service_unavailable"]
        if failed:
            self._require_fault(armed, len(failed) == len(answers))
            self._report(questions, None, known)
            self.workload.unheard(burst)
            self._mend()
            return
        self._report(questions, answers, known)
        for (worker, asked), answer in zip(burst, answers, strict=True):
            self.workload.heard(worker, asked, answer)

    def _report(self, questions: list[Question], answers: Any, known: Known) -> None:
        clock_ms = self.installation.clock.said_ms
        self.auditor.burst(questions, answers, known, clock_ms)

    def _groups(self, questions: Sequence[Question]) -> list[list[Question]]:
        """Payments beside one another are asked as many or one by one; all else is alone."""
        groups: list[list[Question]] = []
        for what, run in groupby(questions, key=lambda asked: asked.what):
            together = list(run)
            if what == "pay" and self.draw.random() < 0.7:
                groups.append(together)
            else:
                groups += [[asked] for asked in together]
        return groups

    # Operators, owners and thieves

    def _create(self, parent: str | None = None) -> None:
        workload, draw = self.workload, self.draw
        policy = workload.policy() if parent is None else workload.beneath(self.policies[parent])
        lists = ("permissions", "merchants", "tokens", "chains", "conditions")
        above = None if parent is None else self.views[parent]
        asked = Asked(
            limits=policy["limits_micro_usd"],
            **{name: tuple(policy[name]) for name in lists},
            days=draw.choice((2, 20, 60, 120) if above is None else (1, 1, 10)),
            on_chain=above.mint_pkp if above is not None else draw.random() < 0.5,
            owner=OWNER,
            agent=policy["agent_id"],
            required=max(draw.choice((1, 1, 2, 3)), above.approvals_required if above else 1),
            parent=parent,
        )
        if not asked.permissions:
            policy["permissions"] = ["pay"]
        armed = self.installation.faults.armed
        created: list[str] = []
        clock, sessions = self.installation.clock, self.auditor.sessions

        def report(answer: Any) -> None:
            found = sessions.created(policy, parent, asked.days, answer, clock.said_ms)
            if found is not None:
                created.append(found)

        self._do(lambda: self.installation.create(asked).id, report, armed)
        for session in created:
            self.workload.sessions.append(session)
            self.views[session] = self.installation.engine.sessions.get(WORKSPACE, session)
            self.policies[session] = policy

    def _delegate(self) -> None:
        self._create(self.draw.choice(self.workload.sessions or list(self.views)))

    def _budget(self) -> None:
        """An operator sets what an agent or the workspace may spend."""
        agent = self.draw.choice((None, *sorted(set(AGENTS))))
        limits = self.workload.budget()
        budgets, clock = self.installation.engine.budgets, self.installation.clock
        name = "workspace" if agent is None else f"agent:{agent}"
        if agent is not None and agent not in {view.agent_id for view in self.views.values()}:
            return  # nobody knows it yet
        by = self.draw.choice(self.keys)

        def command() -> Any:
            if limits is None:
                budgets.clear(WORKSPACE, agent, by=by)
            else:
                budgets.set(WORKSPACE, agent, BudgetLimits(**limits), by=by)
            return name

        self._do(
            command,
            lambda answer: self.auditor.budgeted(name, limits, answer, clock.said_ms),
            self.installation.faults.armed,
        )

    def _operate(self) -> None:
        """Operators look at one or a few of the approvals that wait."""
        waits, urgent = self.workload.waits, self.workload.urgent
        self.workload.urgent = None
        newest = list(waits)[-8:]
        chosen = self.draw.choices(newest, k=self.draw.randint(1, 4)) if newest else []
        for wait in [urgent] if urgent is not None else chosen:
            keys = self.draw.sample(self.keys, self.draw.randint(1, OPERATORS))
            for key in keys:
                self._judge(wait, key, deny=self.draw.random() < 0.08)
            if self.draw.random() < 0.5 and wait in waits:
                waits.remove(wait)

    def _judge(self, wait: Wait, key: str, *, deny: bool) -> None:
        approvals, clock = self.installation.engine.approvals, self.installation.clock
        act = approvals.deny if deny else approvals.grant
        known, books = self._known(), self.auditor

        def report(answer: Any) -> None:
            if deny:
                books.refused(wait.session, wait.approval, key, answer, clock.said_ms)
            else:
                books.granted(wait.session, wait.approval, key, answer, known, clock.said_ms)

        self._do(
            lambda: approval_in_words(act(WORKSPACE, wait.approval, by=key)),
            report,
            self.installation.faults.armed,
        )

    def _replace_key(self) -> None:
        """An operator has a new key. The old one does not count any more, but may still be used."""
        self.installation.faults.armed = None
        valid = self.auditor.books.keys
        if len(valid) == OPERATORS:
            old = self.draw.choice(sorted(valid))
            self.installation.revoke_key(old)
            valid = valid - {old}
        new = self.installation.new_key()
        self.keys = [*self.keys, new][-OPERATORS - 2 :]
        self.auditor.books.log.follow(self.installation.data_file)
        self.auditor.books.at(self.installation.clock.said_ms)
        self.auditor.keys_are(valid | {new})

    def _revoke(self) -> None:
        sessions = self.workload.sessions
        session = self.draw.choice(sessions)
        armed = self.installation.faults.armed
        engine, clock = self.installation.engine, self.installation.clock
        self._do(
            lambda: engine.sessions.revoke(WORKSPACE, session, by="operator").state,
            lambda state: self.auditor.sessions.revoked(session, state is not None, clock.said_ms),
            armed,
        )
        if self.draw.random() < 0.8:  # or it is asked for payments ever after
            sessions.remove(session)

    def _do(self, command: Callable[[], Any], report: Callable[[Any], None], armed: Any) -> None:
        """Run a command and report what it answered: a refusal as `error`, None if nobody heard."""
        answer = None
        try:
            answer = command()
        except Crash:
            self._crashed(armed, lambda: report(None))
            return
        except TallystickError as error:
            if error.code == Unavailable.code:
                self._require_fault(armed, True)
            else:
                answer = {"error": error.code}
        self.digest.update(repr(answer).encode())
        self.auditor.books.log.follow(self.installation.data_file)
        report(answer)
        self._mend()

    def _restart(self) -> None:
        self.installation.faults.armed = None
        self.installation.close()
        self._open()
        self.auditor.restarted(self.installation.clock.said_ms)
        self._looked(whole=self.installation.engine.lead.chain_fault is None)

    # The chain

    def _look(self) -> None:
        """Something happens on the chain, and the engine looks at it."""
        self._happen()
        armed = self.installation.faults.armed
        whole = False
        try:
            self.installation.engine.tick(anchor=self.draw.random() < 0.3)
            whole = self.installation.engine.lead.chain_fault is None
        except Crash:
            self._crashed(armed, lambda: None)
            return
        except (TallystickError, sa.exc.DBAPIError):
            self._require_fault(armed, True)
        self.auditor.books.log.follow(self.installation.data_file)
        self._looked(whole=whole)
        self._mend()

    def _happen(self) -> None:
        draw, chain = self.draw, self.installation.chain
        time_s = self.installation.clock.now_ms // 1000 + draw.randint(-2, 2)
        if draw.random() < 0.2:
            depth = draw.randint(1, 5)
            chain.reorganise(depth, keep=lambda: draw.random() < 0.6)
            for _ in range(draw.randint(0, depth)):
                chain.mine(time_s)
            self.figures["reorganisations"] += 1
        if draw.random() < 0.05:
            chain.forget_pool()
        ours = [view for s in self.workload.sessions if (view := self.views[s]).mint_pkp]
        if ours and draw.random() < 0.1:
            view = draw.choice(ours)
            chain.by_somebody(contracts.revoking(view.grant, view.token_id))
        if ours and draw.random() < 0.08:
            view = ours[-1]
            grant = replace(view.grant, salt=draw.randbytes(32))
            chain.by_somebody(contracts.registering(grant, view.public_key))
        if ours and draw.random() < 0.5:
            view = draw.choice(ours)
            limits = self.workload.lower(view.grant.limits)
            chain.by_somebody(contracts.lowering(view.grant, view.token_id, limits))
        for _ in range(draw.choice((0, 1, 1, 2, 3))):
            chain.mine(time_s)

    def _looked(self, *, whole: bool) -> None:
        """Tell the auditor what the chain is like after a look of the engine's."""
        installation, chain = self.installation, self.installation.chain
        self.tried_ms = installation.stopwatch()
        if whole:
            self.read_ms = self.tried_ms
        log = installation.log
        sessions = {
            "0x" + token_id.to_bytes(32)[12:].hex(): fact
            for token_id, fact in chain.sessions().items()
        }
        self.auditor.sessions.ticked(
            Seen(
                clock_ms=installation.clock.said_ms,
                whole=whole,
                sessions=sessions,
                tip=chain.blocks[-1].header.number,
                time_ms=chain.blocks[-1].header.timestamp_s * 1000,
                time_max_ms=chain.time_max_s * 1000,
                anchored=chain.anchored(),
                log_size=log.size,
                log_root=log.tree.root(log.size),
            )
        )

    # Faults

    def _crashed(self, armed: Any, report: Callable[[], Any]) -> None:
        """The engine is gone: open what it left, and let the auditor see what had happened."""
        self.figures[f"{armed.kind} at {armed.point}"] += 1
        self.installation.crashed()
        self._open()
        report()
        self.auditor.restarted(self.installation.clock.said_ms)
        self._looked(whole=self.installation.engine.lead.chain_fault is None)

    def _open(self) -> None:
        if self.draw.random() < 0.1:
            self.installation.faults.armed = self.workload.fault_while_opening()
        self.read_ms = self.tried_ms = None
        while True:
            armed = self.installation.faults.armed
            try:
                self.installation.open()
            except Crash:
                self.figures["crash while opening"] += 1
                self.installation.crashed()
            except CannotStart as error:
                if armed is None:
                    raise Finding("restart", f"the engine does not start: {error}") from error
                self.installation.faults.armed = None
            else:
                break
        self.installation.faults.armed = None
        self.auditor.books.log.recount(self.installation.data_file)
        self.auditor.books.log.follow(self.installation.data_file)

    def _mend(self) -> None:
        """After a failure of the disk nothing goes on before a restart."""
        if self.installation.writer.fault is not None:
            self._restart()

    def _require_fault(self, armed: Any, held: bool) -> None:
        struck = armed is not None and self.installation.faults.armed is None
        if not (struck and held):
            raise Finding("answers", "it says that it is unavailable, and nothing was wrong")
        self.figures[f"{armed.kind} at {armed.point}"] += 1

    # Time

    def _pass_time(self) -> int:
        """Move the clock; sessions that are over by it are rarely asked for payments again."""
        by_ms = self.workload.later(self.installation.clock.now_ms)
        self.installation.clock.advance(by_ms)
        self.installation.stopwatch.advance(max(0, by_ms))
        now_ms, sessions = self.installation.clock.now_ms, self.workload.sessions
        for session in sessions[:]:
            if self.views[session].expires_ms <= now_ms and self.draw.random() < 0.7:
                sessions.remove(session)
        return by_ms

    def _known(self) -> Known:
        """What the engine must know of the chain, as far as one can tell from outside."""
        installation = self.installation

        def lately(at_ms: int | None) -> bool:
            return at_ms is not None and installation.stopwatch() - at_ms <= SILENCE_MAX_MS

        if lately(self.read_ms):
            return Known(read=True, fresh=True)
        fresh = None if lately(self.tried_ms) else False
        return Known(read=self.read_ms is not None or None, fresh=fresh)

    def _end(self) -> None:
        """Restart, ask again what was answered, and read everything from the file alone."""
        self._restart()
        asked = [question for worker in self.workload.workers for question in worker.asked]
        questions = self.draw.sample(asked, min(len(asked), ASKED_AGAIN_AT_THE_END))
        with self.installation.writer.one_batch():
            futures = [
                submit(self.installation.engine.ledger, [question]) for question in questions
            ]
        answers = [answer for future in futures for answer in answers_of(future)]
        self.auditor.books.log.follow(self.installation.data_file)
        self._report(questions, answers, self._known())
        self._look()
        self.auditor.end(self.installation.data_file)
