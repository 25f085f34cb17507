"""The grammar: one spelling for each meaning, and everything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.policy.active_hours import DAY_MINUTES
from engine.policy.conditions import (
    CONDITIONS_MAX,
    ActiveHours,
    Cap,
    Condition,
    ConditionError,
    Never,
    parse_condition,
    parse_conditions,
)
from engine.policy.identifiers import IdentifierError, normalise_merchant
from engine.policy.money import AMOUNT_MAX_MICRO_USD
from tests.policy.samples import USD, USDC

SENTENCES = {
    "lifetime at most 5000 USD": Cap("sum", None, 5000 * USD, "lifetime"),
    "lifetime at most 0.000001 USD": Cap("sum", None, 1, "lifetime"),
    "lifetime at most 999999999.999999 USD": Cap("sum", None, AMOUNT_MAX_MICRO_USD, "lifetime"),
    "at most 10 payments per hour": Cap("payments", None, 10, "hour"),
    "at most 1 payment per day": Cap("payments", None, 1, "day"),
    "at most 999999999 payments per lifetime": Cap("payments", None, 999_999_999, "lifetime"),
    f"token {USDC} at most 100 USD per day": Cap("token", USDC, 100 * USD, "day"),
    "token eip155:1/slip44:60 at most 1 USD per transaction": Cap(
        "token", "eip155:1/slip44:60", USD, "transaction"
    ),
    "merchant books at most 20 USD per transaction": Cap(
        "merchant", "books", 20 * USD, "transaction"
    ),
    "merchant books at most 12.5 USD per hour": Cap("merchant", "books", 12_500_000, "hour"),
    "merchant books at most 1 USD per week": Cap("merchant", "books", USD, "week"),
    "merchant books at most 1 USD per month": Cap("merchant", "books", USD, "month"),
    "merchant books at most 1 USD per lifetime": Cap("merchant", "books", USD, "lifetime"),
    'merchant "Books & Co" at most 1 USD per day': Cap("merchant", "Books & Co", USD, "day"),
    r'merchant "say \"hi\" \\" at most 1 USD per day': Cap("merchant", 'say "hi" \\', USD, "day"),
    r'never merchant "a\\b"': Never("merchant", "a\\b"),
    'never merchant "x at most 5 USD per day"': Never("merchant", "x at most 5 USD per day"),
    "never merchant casino": Never("merchant", "casino"),
    "never merchant データ": Never("merchant", "データ"),
    'never merchant "a\u3000b"': Never("merchant", "a\u3000b"),
    f"never token {USDC}": Never("token", USDC),
    "never chain eip155:56": Never("chain", "eip155:56"),
    "only 09:00-17:00 UTC on Mon Tue Wed Thu Fri": ActiveHours(540, 1020, (0, 1, 2, 3, 4)),
    "only 00:00-24:00 UTC on Sun": ActiveHours(0, 1440, (6,)),
    "only 23:59-24:00 UTC on Mon": ActiveHours(1439, 1440, (0,)),
}


@pytest.mark.parametrize(("sentence", "meaning"), SENTENCES.items(), ids=SENTENCES)
def test_a_sentence_and_its_meaning(sentence: str, meaning: Condition) -> None:
    assert parse_condition(sentence) == meaning
    assert str(meaning) == sentence


ANOTHER_SPELLING = [
    ("lifetime at most 5000.00 USD", "write 'lifetime at most 5000 USD'"),
    ("lifetime at most 0.50 USD", "write 'lifetime at most 0.5 USD'"),
    ("at most 010 payments per hour", "write 'at most 10 payments per hour'"),
    ("at most 1 payments per hour", "write 'at most 1 payment per hour'"),
    ("at most 2 payment per hour", "write 'at most 2 payments per hour'"),
    ('merchant "books" at most 1 USD per day', "write 'merchant books at most"),
    ('never merchant "bo\\oks"', "write 'never merchant books'"),
    ("never merchant 0x" + "AB" * 20, "write 'never merchant 0x" + "ab" * 20),
    ("never merchant e\u0301", "write 'never merchant é'"),
    ("never token " + USDC.replace("a", "A", 1), "token is a CAIP-19|write|chain is"),
    ("only 09:00-17:00 UTC on Tue Mon", "write 'only 09:00-17:00 UTC on Mon Tue'"),
    ("only 09:00-17:00 UTC on Mon Mon", "write 'only 09:00-17:00 UTC on Mon'"),
]


@pytest.mark.parametrize(("text", "advice"), ANOTHER_SPELLING)
def test_another_spelling_is_refused_and_the_one_is_named(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        parse_condition(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "lifetime at most 5000 usd",
        "lifetime at most 5000 USD ",
        " lifetime at most 5000 USD",
        "lifetime  at most 5000 USD",
        "lifetime at most 5000 USD\n",
        "lifetime at most 5,000 USD",
        "lifetime at most 5e3 USD",
        "lifetime at most -1 USD",
        "lifetime at most +1 USD",
        "lifetime at most 0 USD",
        "lifetime at most 01 USD",
        "lifetime at most .5 USD",
        "lifetime at most 1. USD",
        "lifetime at most 0.0000001 USD",
        "lifetime at most 1000000000 USD",
        "lifetime at most \uff15 USD",
        "lifetime at most NaN USD",
        "at most 0 payments per hour",
        "at most 1000000000 payments per hour",
        "at most 99999999999 payments per hour",
        "at most 1.5 payments per hour",
        "at most \uff15 payments per hour",
        "at most 5 payments per week",
        "at most 5 payments per transaction",
        "at most 5 USD per day",
        "token USDC at most 1 USD per day",
        "token eip155:01/slip44:60 at most 1 USD per day",
        "merchant at most 1 USD per day",
        'merchant "" at most 1 USD per day',
        'merchant " books" at most 1 USD per day',
        "merchant books at most 1 USD per year",
        "merchant Books & Co at most 1 USD per day",
        "merchant x at most 5 USD per day at most 9 USD per day",
        'merchant "x at most 1 USD per day',
        'never merchant "a"b"',
        'never merchant "a\\',
        "never merchant a b",
        "never merchant a\u202eb",
        "never merchant " + "x" * 257,
        "never agent bot",
        "never chain eip155:1/slip44:60",
        "never token eip155:1",
        "only 17:00-09:00 UTC on Mon",
        "only 09:00-09:00 UTC on Mon",
        "only 9:00-17:00 UTC on Mon",
        "only 09:00-24:01 UTC on Mon",
        "only 09:60-17:00 UTC on Mon",
        "only 24:00-25:00 UTC on Mon",
        "only 09:00-17:00 on Mon",
        "only 09:00-17:00 CET on Mon",
        "only 09:00-17:00 UTC on mon",
        "only 09:00-17:00 UTC on",
        "only 09:00-17:00 UTC on Mon, Tue",
        "only 09:00-17:00 UTC",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_condition(text)


def name(text: str) -> str | None:
    try:
        return normalise_merchant(text)
    except IdentifierError:
        return None


names = st.text('ab" \\é\u3000-', min_size=1, max_size=12) | st.text(min_size=1, max_size=12)
merchants = names.map(name).filter(lambda text: text is not None)
money = st.integers(1, AMOUNT_MAX_MICRO_USD)
pers = st.sampled_from(["transaction", "hour", "day", "week", "month", "lifetime"])
tokens = st.sampled_from([USDC, "eip155:1/slip44:60"])
minutes = st.tuples(st.integers(0, DAY_MINUTES), st.integers(0, DAY_MINUTES)).filter(
    lambda pair: pair[0] < pair[1]
)
days = st.sets(st.integers(0, 6), min_size=1).map(lambda found: tuple(sorted(found)))
caps = (
    st.builds(Cap, st.just("sum"), st.none(), money, st.just("lifetime"))
    | st.builds(
        Cap,
        st.just("payments"),
        st.none(),
        st.integers(1, 999_999_999),
        st.sampled_from(["hour", "day", "lifetime"]),
    )
    | st.builds(Cap, st.just("merchant"), merchants, money, pers)
    | st.builds(Cap, st.just("token"), tokens, money, pers)
)
nevers = (
    st.builds(Never, st.just("merchant"), merchants)
    | st.builds(Never, st.just("token"), tokens)
    | st.builds(Never, st.just("chain"), st.sampled_from(["eip155:1", "solana:mainnet"]))
)
hours = st.builds(lambda span, on: ActiveHours(*span, on), minutes, days)


@given(caps | nevers | hours)
def test_every_condition_reads_back_as_itself(condition: Condition) -> None:
    assert parse_condition(str(condition)) == condition


@given(st.sampled_from(list(SENTENCES)), st.data())
def test_a_sentence_with_one_character_changed_is_another_condition_or_none(
    sentence: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(sentence)))
    gone = data.draw(st.integers(0, 1))
    put = data.draw(st.sampled_from(["", *' "\\0159.:-abMonT\n\u0301']))
    changed = sentence[:place] + put + sentence[place + gone :]
    try:
        condition = parse_condition(changed)
    except ValueError:
        return
    assert str(condition) == changed
    assert (condition == SENTENCES[sentence]) == (changed == sentence)


@given(
    st.lists(caps, max_size=5, unique_by=lambda cap: cap.of_what),
    st.lists(nevers, max_size=3, unique=True),
)
def test_a_list_reads_back_as_itself(some: list[Condition], others: list[Condition]) -> None:
    sentences = sorted(map(str, [*some, *others]))
    read = parse_conditions(sentences)
    assert set(read) == {*some, *others}
    assert list(map(str, read)) == sentences


@pytest.mark.parametrize(
    ("texts", "field", "reason"),
    [
        (["never merchant b", "never merchant a"], "conditions[1]", "sorted"),
        (["never merchant a", "never merchant a"], "conditions[1]", "once"),
        (["never merchant a", "nonsense"], "conditions[1]", "none of the sentences"),
        (["lifetime at most 5.0 USD"], "conditions[0]", "write 'lifetime at most 5 USD'"),
        (
            ["lifetime at most 5 USD", "lifetime at most 6 USD"],
            "conditions[1]",
            "the same is capped twice",
        ),
        (
            ["merchant a at most 5 USD per day", "merchant a at most 6 USD per day"],
            "conditions[1]",
            "the same is capped twice",
        ),
        (
            [f"never merchant m{number:03}" for number in range(CONDITIONS_MAX + 1)],
            "conditions",
            "more than 64",
        ),
    ],
)
def test_a_list_that_is_not_in_its_one_form_is_refused(
    texts: list[str], field: str, reason: str
) -> None:
    with pytest.raises(ConditionError, match=reason) as refused:
        parse_conditions(texts)
    assert refused.value.field == field
    assert str(refused.value) == f"{field}: {refused.value.reason}"


def test_so_many_conditions_are_a_list() -> None:
    texts = [f"never merchant m{number:03}" for number in range(CONDITIONS_MAX)]
    assert len(parse_conditions(texts)) == CONDITIONS_MAX


def test_different_windows_and_names_are_different_caps() -> None:
    texts = (
        "merchant a at most 5 USD per day",
        "merchant a at most 6 USD per week",
        "merchant b at most 5 USD per day",
        "token eip155:1/slip44:60 at most 5 USD per day",
    )
    assert tuple(map(str, parse_conditions(texts))) == texts


SAME_HOURS = [
    (
        ["only 09:00-12:00 UTC on Mon", "only 12:00-17:00 UTC on Mon"],
        ["only 09:00-17:00 UTC on Mon"],
    ),
    (
        ["only 09:00-13:00 UTC on Mon", "only 12:00-17:00 UTC on Mon"],
        ["only 09:00-17:00 UTC on Mon"],
    ),
    (
        ["only 09:00-17:00 UTC on Mon", "only 09:00-17:00 UTC on Tue"],
        ["only 09:00-17:00 UTC on Mon Tue"],
    ),
    (
        ["only 09:00-12:00 UTC on Mon Tue", "only 12:00-17:00 UTC on Mon"],
        ["only 09:00-12:00 UTC on Tue", "only 09:00-17:00 UTC on Mon"],
    ),
    (["only 00:00-24:00 UTC on Mon Tue Wed Thu Fri Sat Sun"], []),
]


@pytest.mark.parametrize(("texts", "form"), SAME_HOURS)
def test_the_same_hours_have_one_form(texts: list[str], form: list[str]) -> None:
    with pytest.raises(ConditionError, match="active hours") as refused:
        parse_conditions(texts)
    assert refused.value.field == "conditions"
    assert all(repr(sentence) in refused.value.reason for sentence in form)
    assert ("not at all" in refused.value.reason) == (form == [])
    assert list(map(str, parse_conditions(form))) == form


def test_hours_over_midnight_are_two_sentences() -> None:
    texts = ("only 00:00-06:00 UTC on Tue", "only 22:00-24:00 UTC on Mon")
    assert tuple(map(str, parse_conditions(texts))) == texts


@given(st.lists(hours, min_size=1, max_size=4))
def test_any_hours_are_refused_with_a_form_that_is_accepted(some: list[ActiveHours]) -> None:
    """Following the advice gives a list that is accepted and open at the same minutes."""
    texts = sorted({str(each) for each in some})
    try:
        parse_conditions(texts)
    except ConditionError as refused:
        advice = [text for text in refused.reason.split("'") if text.startswith("only")]
        read = parse_conditions(sorted(advice))
        assert open_minutes(read) == open_minutes(some) or not read


def open_minutes(conditions: object) -> set[int]:
    assert isinstance(conditions, tuple | list)
    return {
        day * DAY_MINUTES + minute
        for each in conditions
        for day in each.days
        for minute in range(each.from_minute, each.until_minute)
    }
