"""What every limiter promises; an adapter joins by an entry in `LIMITERS`."""

import asyncio
import gc
import itertools
import tracemalloc
from collections.abc import Callable, Mapping

import pytest

from chatassist.adapters.limits.memory import REFUSALS, SECOND, MemoryLimiter
from chatassist.domain.errors import Limited, TooManyLogins, TooManyReads, TooManySends
from chatassist.domain.ports.limits import Limiter, Rule


class HandClock:
    """A monotonic clock in nanoseconds, moved by hand; it starts at an awkward number."""

    def __init__(self) -> None:
        self.now = 1_234_567_890_123_456_789

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


Build = Callable[[Mapping[Rule, int], HandClock], Limiter]
LIMITERS: dict[str, Build] = {"memory": lambda per_minute, clock: MemoryLimiter(per_minute, monotonic=clock)}
LIMITS = {Rule.SENDS: 3, Rule.LOGINS: 2, Rule.READS: 1}


@pytest.fixture(params=LIMITERS)
def build(request: pytest.FixtureRequest) -> Build:
    return LIMITERS[request.param]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def limiter(build: Build, clock: HandClock) -> Limiter:
    return build(LIMITS, clock)


async def wait_asked(limiter: Limiter, rule: Rule, subject: str) -> float:
    """Hit once, expecting a refusal; return its retry_after."""
    with pytest.raises(Limited) as caught:
        await limiter.hit(rule, subject)
    assert caught.value.retry_after is not None
    return caught.value.retry_after


@pytest.mark.parametrize(
    ("rule", "refusal"),
    [(Rule.LOGINS, TooManyLogins), (Rule.SENDS, TooManySends), (Rule.READS, TooManyReads)],
)
async def test_a_rule_allows_its_number_and_then_refuses_in_its_own_words(
    limiter: Limiter, rule: Rule, refusal: type[Limited]
) -> None:
    for _ in range(LIMITS[rule]):
        await limiter.hit(rule, "alice")

    with pytest.raises(refusal):
        await limiter.hit(rule, "alice")


def test_every_rule_has_a_refusal() -> None:
    assert set(REFUSALS) == set(Rule)


@pytest.mark.parametrize("per_minute", [{}, {Rule.SENDS: 0}, {Rule.READS: 1}], ids=str)
async def test_a_rule_without_a_number_is_off(build: Build, clock: HandClock, per_minute: Mapping[Rule, int]) -> None:
    limiter = build(per_minute, clock)

    for _ in range(1000):
        await limiter.hit(Rule.SENDS, "alice")


async def test_rules_and_subjects_are_counted_apart(limiter: Limiter) -> None:
    for subject, rule in itertools.product(["alice", "bob", "Alice", ""], Rule):
        await limiter.hit(rule, subject)

    assert await wait_asked(limiter, Rule.READS, "alice") == 60


@pytest.mark.parametrize("step", [0.1, 0.3, 1.0, 7.7, 19.599999999, 1e-9])
@pytest.mark.parametrize("later", [0.0, 0.25, 1.0, 1e-9])
async def test_a_retry_after_the_seconds_asked_for_succeeds_and_a_second_earlier_does_not(
    limiter: Limiter, clock: HandClock, step: float, later: float
) -> None:
    for _ in range(3):
        await limiter.hit(Rule.SENDS, "alice")
        clock.advance(step)
    clock.advance(later)
    wait = await wait_asked(limiter, Rule.SENDS, "alice")

    assert wait == int(wait)
    assert 1 <= wait <= 60
    clock.advance(wait - 1)
    await wait_asked(limiter, Rule.SENDS, "alice")
    clock.advance(1)
    await limiter.hit(Rule.SENDS, "alice")


async def test_the_window_moves(limiter: Limiter, clock: HandClock) -> None:
    """A fixed window would let six pass within these 21 seconds."""
    clock.advance(40)
    for _ in range(3):
        await limiter.hit(Rule.SENDS, "alice")
    clock.advance(21)

    assert await wait_asked(limiter, Rule.SENDS, "alice") == 39


async def test_a_refused_use_is_not_counted(limiter: Limiter, clock: HandClock) -> None:
    for _ in range(3):
        await limiter.hit(Rule.SENDS, "alice")
    for _ in range(59):
        clock.advance(1)
        await wait_asked(limiter, Rule.SENDS, "alice")
    clock.advance(1)

    for _ in range(3):
        await limiter.hit(Rule.SENDS, "alice")
    assert await wait_asked(limiter, Rule.SENDS, "alice") == 60


async def test_of_many_at_once_exactly_the_number_passes(build: Build, clock: HandClock) -> None:
    limiter = build({Rule.SENDS: 20}, clock)

    ends = await asyncio.gather(*(limiter.hit(Rule.SENDS, "alice") for _ in range(100)), return_exceptions=True)

    assert [type(end) for end in ends].count(TooManySends) == 80


async def test_memory_forgets_who_is_idle_piece_by_piece(clock: HandClock) -> None:
    limiter = MemoryLimiter({Rule.LOGINS: 1_000_000}, monotonic=clock)
    for number in range(100_000):
        await limiter.hit(Rule.LOGINS, f"address {number}")
    clock.advance(60)

    await limiter.hit(Rule.LOGINS, "new")
    assert limiter.remembered == 99_999  # two of the old, so that no hit makes the loop wait for all of them
    for _ in range(50_000):
        await limiter.hit(Rule.LOGINS, "new")
    assert limiter.remembered == 1


async def test_memory_keeps_who_is_active(clock: HandClock) -> None:
    limiter = MemoryLimiter({Rule.SENDS: 2}, monotonic=clock)
    await limiter.hit(Rule.SENDS, "alice")
    clock.advance(59)
    await limiter.hit(Rule.SENDS, "alice")
    clock.advance(59)
    await limiter.hit(Rule.SENDS, "bob")

    await limiter.hit(Rule.SENDS, "alice")
    assert await wait_asked(limiter, Rule.SENDS, "alice") == 1


async def test_memory_is_bounded_under_a_flood_of_subjects_within_a_minute(clock: HandClock) -> None:
    limiter = MemoryLimiter({Rule.LOGINS: 2, Rule.SENDS: 1}, monotonic=clock, subjects=100)
    await limiter.hit(Rule.SENDS, "alice")
    for number in range(10_000):
        await limiter.hit(Rule.LOGINS, f"address {number}")

    assert limiter.remembered == 101
    assert await wait_asked(limiter, Rule.SENDS, "alice") == 60  # one rule's flood costs no other rule its count


async def test_memory_lets_go_first_of_whose_last_use_is_oldest(clock: HandClock) -> None:
    limiter = MemoryLimiter({Rule.SENDS: 2}, monotonic=clock, subjects=2)
    for subject in ("alice", "bob", "alice", "carol"):
        await limiter.hit(Rule.SENDS, subject)

    assert await wait_asked(limiter, Rule.SENDS, "alice") == 60


async def test_memory_keeps_no_more_uses_of_a_subject_than_its_number(clock: HandClock) -> None:
    limiter = MemoryLimiter({Rule.READS: 300}, monotonic=clock)
    tracemalloc.start()
    for _ in range(20_000):
        clock.advance(0.2)
        await limiter.hit(Rule.READS, "alice")
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < 100_000
