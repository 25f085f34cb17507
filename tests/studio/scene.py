"""A workspace as it is after some days: agents, sessions, payments, something that waits."""

from engine.clock import system_clock
from engine.ledger.approval import Approval
from engine.policy.budgets import BudgetLimits
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.ledger.approving import asked_for, first_key
from tests.world import USD, WORKSPACE, World

HOUR_MS = 3_600_000
AGENTS = (("shopper", "Office shopper"), ("reader", "News reader"), ("trader-001", "Rebalancer"))
LUNCH = Limits(100 * USD, 200 * USD, 500 * USD, None, 50 * USD)
NEWS = Limits(5 * USD, 20 * USD, None, 300 * USD, None)
PAID = ((2, 38, "Bakery"), (3, 24, "bookshop.example"), (19, 42, "Bakery"), (5, 45, "caterer"))
READ = ((1, "archive.example"), (2, "weather.example"), (1, "archive.example"))


class LeapingClock:
    """The system's clock, ahead by what was leapt over so far."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return system_clock() + self.ahead_ms


class Scene:
    """`world` has a `LeapingClock`. Afterwards `lunch` has an `approval` that waits."""

    lunch: SessionView
    digest: SessionView
    approval: Approval

    def __init__(self, world: World, clock: LeapingClock) -> None:
        self._world, self._clock = world, clock
        engine, by = world.engine, first_key(world)
        for agent_id, name in AGENTS:
            engine.agents.register(WORKSPACE, agent_id, name, by=by)
        self.lunch = world.session(
            LUNCH,
            mint_pkp=True,
            label="Team lunch",
            agent_id="shopper",
            agent_name="Office shopper",
            duration_ms=72 * HOUR_MS,
            conditions=("at most 6 payments per day", "never merchant casino"),
        )
        engine.anchor()
        old = world.session(NEWS, label="Price watch", agent_id="reader", duration_ms=6 * HOUR_MS)
        stopped = world.session(NEWS, label="News, first try", agent_id="reader")
        for index, (hours, dollars, merchant) in enumerate(PAID):
            self._leap(hours)
            self.paid = world.pay(self.lunch, dollars, merchant=merchant)
            if index == 0:
                world.pay(old, 3, merchant="prices.example")
                world.pay(self.lunch, 120, merchant="Furniture")
        engine.revoke_session(WORKSPACE, stopped.id, by=by)
        self.digest = digest = world.session(
            NEWS,
            label="News digest",
            agent_id="reader",
            duration_ms=96 * HOUR_MS,
            merchants=("archive.example", "weather.example"),
        )
        checkout = world.session(LUNCH, type="app", label="web-checkout", agent_id="web-shop")
        engine.sessions.restrict(
            WORKSPACE, self.lunch.id, ("only 08:00-20:00 UTC on Mon Tue Wed Thu Fri",), by=by
        )
        engine.sessions.restrict(WORKSPACE, self.lunch.id, ("never merchant Furniture",), by=by)
        engine.budgets.set(WORKSPACE, "shopper", BudgetLimits(per_day=250 * USD), by=by)
        bounds = BudgetLimits(per_month=2_000 * USD, payments_per_hour=100)
        engine.budgets.set(WORKSPACE, None, bounds, by=by)
        for dollars, merchant in READ:
            self._leap(1)
            world.pay(digest, dollars, merchant=merchant)
            world.pay(checkout, 7 * dollars, merchant="payment processor")
        for _ in range(3):
            world.pay(digest, 4, merchant="archive.example")
        world.session(NEWS, label="Weekly report", agent_id="reader", duration_ms=HOUR_MS // 2)
        self.approval = asked_for(world, self.lunch, 60, merchant="caterer")
        engine.anchor()
        engine.reconciler.run()

    def _leap(self, hours: int) -> None:
        self._clock.ahead_ms += hours * HOUR_MS
        self._world.engine.tick()
