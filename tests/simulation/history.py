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
from engine.sessions.session import SessionView
from tests.simulation.asking import answers_of, short, submit
from tests.simulation.auditor import Auditor
from tests.simulation.books import Known, Question, Seen
from tests.simulation.faults import Crash
from tests.simulation.installation import CONFIRMATIONS, Asked, Installation
from tests.simulation.log import Finding
from tests.simulation.workload import TEMPERS, Workload
from tests.world import WORKSPACE

SESSIONS = 16
SILENCE_MAX_MS = 300_000
OWNER = "0x" + "22" * 20
ASKED_AGAIN_AT_THE_END = 200
STEPS = {"burst": 60, "look": 18, "create": 4, "revoke": 2, "restart": 1}


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
            self._create()
        moved_ms = self._pass_time()
        if self.draw.random() < self.workload.temper.faults:
            self.installation.faults.armed = self.workload.fault()
        if moved_ms > SILENCE_MAX_MS and self.draw.random() < 0.8:
            self._look()
        [kind] = self.draw.choices(list(STEPS), weights=list(STEPS.values()))
        # Whatever is at an edge is asked there and then: a millisecond later it is none.
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

    def _create(self) -> None:
        policy = self.workload.policy()
        lists = ("permissions", "merchants", "tokens", "chains", "conditions")
        asked = Asked(
            limits=policy["limits_micro_usd"],
            **{name: tuple(policy[name]) for name in lists},
            days=self.draw.choice((2, 20, 60, 120)),
            on_chain=self.draw.random() < 0.5,
            owner=OWNER,
        )
        if not asked.permissions:
            policy["permissions"] = ["pay"]
        armed = self.installation.faults.armed
        created: list[str] = []
        clock = self.installation.clock

        def report(session: str | None) -> None:
            if (found := self.auditor.sessions.created(policy, session, clock.said_ms)) is not None:
                created.append(found)

        self._do(lambda: self.installation.create(asked).id, report, armed)
        for session in created:
            self.workload.sessions.append(session)
            self.views[session] = self.installation.engine.sessions.get(WORKSPACE, session)

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

    def _do(
        self, command: Callable[[], str], report: Callable[[str | None], None], armed: Any
    ) -> None:
        """Run a command and report what it answered, or None if nobody heard it."""
        answer = None
        try:
            answer = command()
        except Crash:
            self._crashed(armed, lambda: report(None))
            return
        except Unavailable:
            self._require_fault(armed, True)
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
