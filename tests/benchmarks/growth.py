"""Does a request cost the same however many rows there are? One account each of four sizes, among many others."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import quantiles
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg

from tests.benchmarks import data
from tests.benchmarks.processes import BenchError, Programs
from tests.benchmarks.report import Verdict
from tests.benchmarks.setting import Setting
from tests.benchmarks.variants import Running, Shipped

SIZES = (1_000, 100_000, 1_000_000, 3_000_000)
"""The rows of users 1 to 4."""

OTHERS, ROWS_OF_OTHERS = 20_000, 100
REPEATS = 400
"""How often each question is asked for each user; what is slow is asked for PATIENCE seconds at the most."""

PATIENCE = 20.0

RARE, FREQUENT, ABSENT, OUT_OF_USE = "zyzzyva", "coffee", "quagga", "bread"
"""In one description of 100,000, and in the seventh of each account; in one of five; in none; in a fifth of the older
half.
"""

OLDEST, LARGE = 100, 5000
"""One row of so many, the oldest ones, has an amount as large as this; no other has."""

PAGE_1 = "list, page 1"
CURSORS = ("?cursor=, page 1", "?cursor= at the middle", "?cursor= near the end", "?cursor= backwards from the end")
FLAT = 1.5
"""The target for these, each by itself: the slowest account's p50 in units of the quickest's."""

OUT_OF_BOUNDS = "?search= common once, not lately"
"""What docs/decisions/0047 says is not flat."""

FAR_END = ("?amount_min= that only the oldest have", "the same, and ?timestamp_after=")
"""What the order of the list has at its far end: no page reads more of it than its bound."""

AT_MOST = {"?search= rare": 60.0, "?search= absent": 5.0, **dict.fromkeys(FAR_END, 60.0)}
"""The targets for these: milliseconds at the largest account."""

# Row n of the largest account; of the others every third, every thirtieth and so on, so that all have grown together.
LOAD = """
INSERT INTO transactions_transaction (user_id, amount, description, timestamp)
SELECT owner.user_id,
    CASE WHEN n <= %(largest)s / %(oldest)s THEN %(large)s + owner.nth %% 100
    ELSE (owner.nth::bigint * 37 %% 200000 - 100000)::numeric / 100 END,
    CASE WHEN owner.nth = 7 AND (owner.user_id <= 4 OR owner.user_id %% 100 = 0) OR owner.nth %% 100000 = 7
        THEN 'Found a zyzzyva, no. ' || owner.nth
    WHEN owner.nth %% 5 = 0 THEN 'Coffee no. ' || owner.nth
    WHEN owner.nth %% 5 = 1 AND n < %(largest)s / 2 THEN 'Bread no. ' || owner.nth
    ELSE (ARRAY['Groceries', 'Rent', 'Bus ticket', 'Salary', 'Books', 'Electricity', 'Insurance'])[1 + owner.nth %% 7]
        || ' no. ' || owner.nth END,
    timestamptz '2026-01-01 00:00:00.123+00' - (%(largest)s - n) * interval '7 seconds'
FROM generate_series(1, %(largest)s) AS n
CROSS JOIN LATERAL (
    SELECT 4 AS user_id, n AS nth
    UNION ALL SELECT 3, n / (%(largest)s / %(third)s) WHERE n %% (%(largest)s / %(third)s) = 0
    UNION ALL SELECT 2, n / (%(largest)s / %(second)s) WHERE n %% (%(largest)s / %(second)s) = 0
    UNION ALL SELECT 1, n / (%(largest)s / %(first)s) WHERE n %% (%(largest)s / %(first)s) = 0
    UNION ALL SELECT 5 + m %% %(others)s, 1 + m / %(others)s
        FROM (SELECT n * %(of_others)s::bigint / %(largest)s AS m) AS counted
        WHERE n * %(of_others)s::bigint / %(largest)s > (n - 1) * %(of_others)s::bigint / %(largest)s
) AS owner
"""

MAKE_CURSORS = """
import json, sys
import django
django.setup()
from transactions.models import Transaction
from transactions.pagination import Cursor
for number, backwards in json.load(sys.stdin):
    print(Cursor.beside(Transaction.objects.get(pk=number), "-timestamp", backwards=backwards))
"""


@dataclass(frozen=True)
class Answer:
    """What one question to one account came to: milliseconds, and the status that was answered."""

    p50: float
    quarter: float
    three_quarters: float
    """Half of all answers took between these two."""

    status: int
    asked: int


Results = dict[str, list[Answer]]
"""By question; one answer for each of the users 1 to 4."""


def measure_growth(setting: Setting, say: Callable[[str], None], *, quick: bool) -> dict[str, object]:
    """Load the rows, ask, and return what came of it, ready for JSON."""
    sizes = tuple(size // 10 for size in SIZES) if quick else SIZES
    with Programs(setting.work / "log") as programs:
        variant = Shipped(setting, programs)
        say("making the schema")
        variant.migrate()
        seconds = _load(setting, variant, sizes, say)
        say("starting the application")
        running = variant.serve(users=range(1, 5))
        found = _ask_all(setting, running, say)
    return {
        "sizes": sizes,
        "others": OTHERS,
        "rows_of_others": ROWS_OF_OTHERS,
        "load_seconds": seconds,
        "indexes": _indexes(setting, variant),
        "answers": {name: [asdict(answer) for answer in answers] for name, answers in found.items()},
    }


def _load(setting: Setting, variant: Shipped, sizes: tuple[int, ...], say: Callable[[str], None]) -> float:
    started = time.monotonic()
    say(f"inserting {sum(sizes) + OTHERS * ROWS_OF_OTHERS:,} rows")
    data.load_users(setting, variant.database, table="accounts_user", password=variant.password_hash(), last=OTHERS + 4)
    with setting.connect(variant.database) as connection, _without_indexes(connection, say):
        connection.execute(
            LOAD,
            {
                "first": sizes[0],
                "second": sizes[1],
                "third": sizes[2],
                "largest": sizes[3],
                "others": OTHERS,
                "of_others": OTHERS * ROWS_OF_OTHERS,
                "oldest": OLDEST,
                "large": LARGE,
            },
        )
    say("vacuuming")
    data.vacuum(setting, variant.database)
    return time.monotonic() - started


@contextmanager
def _without_indexes(connection: psycopg.Connection, say: Callable[[str], None]) -> Iterator[None]:
    """Drop the indexes that no constraint needs, and make them again afterwards; no trigger fires meanwhile."""
    rows = connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'transactions_transaction'"
        " AND indexname NOT IN (SELECT conname FROM pg_constraint)"
    ).fetchall()
    connection.execute("SET session_replication_role = replica")
    for name, _ in rows:
        connection.execute(f'DROP INDEX "{name}"')
    yield
    for name, definition in rows:
        say(f"making {name}")
        connection.execute(definition)


def _indexes(setting: Setting, variant: Shipped) -> dict[str, int]:
    with setting.connect(variant.database) as connection:
        return dict(
            connection.execute(
                "SELECT indexrelname, pg_relation_size(indexrelid) FROM pg_stat_user_indexes"
                " WHERE relname = 'transactions_transaction'"
            ).fetchall()
        )


def _ask_all(setting: Setting, running: Running, say: Callable[[str], None]) -> Results:
    clients = [Client(running, number) for number in range(4)]
    numbers = _numbers(setting, running)
    middles = _rows(setting, running, [number // 2 for number in numbers])
    # A whole page lies behind it.
    ends = _rows(setting, running, [number - 15 for number in numbers])
    listing = "/api/transactions/"
    cursors = {
        "?cursor= at the middle": _cursors(running, middles),
        "?cursor= near the end": _cursors(running, ends),
        "?cursor= backwards from the end": _cursors(running, ends, backwards=True),
    }
    last_pages = [client.last_page(listing) for client in clients]
    # A hundredth of the oldest rows, by time, and all of them, by amount.
    both = f"?amount_min={LARGE}&timestamp_after={quote(_moment(setting, running))}"
    questions: dict[str, list[str]] = {
        PAGE_1: [listing] * 4,
        "?cursor=, page 1": [f"{listing}?cursor="] * 4,
        **{name: [f"{listing}?cursor={cursor}" for cursor in found] for name, found in cursors.items()},
        "detail": [f"{listing}{number}/" for number in middles],
        "?search= rare": [f"{listing}?search={RARE}"] * 4,
        "?search= absent": [f"{listing}?search={ABSENT}"] * 4,
        "?search= frequent": [f"{listing}?search={FREQUENT}"] * 4,
        "?page=, the last that count allows": [f"{listing}?page={page}" for page in last_pages],
        "?page= at the middle of the rows": [f"{listing}?page={number // 20}" for number in numbers],
        OUT_OF_BOUNDS: [f"{listing}?search={OUT_OF_USE}"] * 4,
        FAR_END[0]: [f"{listing}?amount_min={LARGE}"] * 4,
        FAR_END[1]: [f"{listing}{both}"] * 4,
        "create": ["POST"] * 4,
    }
    found = {}
    for name, paths in questions.items():
        say(name)
        times: list[list[float]] = [[] for _ in paths]
        status = [0] * len(paths)
        started = time.monotonic()
        for repeat in range(REPEATS + 2):
            for number, path in enumerate(paths):
                milliseconds, status[number] = clients[number].ask(path)
                # The first ones bring what they need into memory.
                if repeat >= 2:
                    times[number].append(milliseconds)
            if time.monotonic() - started > PATIENCE and repeat >= 4:
                break
        found[name] = [_answer(found_, code) for found_, code in zip(times, status, strict=True)]
    return found


def _answer(times: list[float], status: int) -> Answer:
    quarter, half, three_quarters = quantiles(times, n=4)
    return Answer(half, quarter, three_quarters, status, len(times))


def _numbers(setting: Setting, running: Running) -> list[int]:
    """Return how many rows each account has."""
    with setting.connect(running.variant.database) as connection:
        rows = connection.execute(
            "SELECT count(*) FROM transactions_transaction WHERE user_id <= 4 GROUP BY user_id ORDER BY user_id"
        ).fetchall()
    if len(rows) != 4:
        raise BenchError("one of the four accounts has no rows")
    return [int(number) for (number,) in rows]


def _rows(setting: Setting, running: Running, places: list[int]) -> list[int]:
    """Return the id of one row of each account, by how many are newer."""
    with setting.connect(running.variant.database) as connection:
        found = [
            connection.execute(
                "SELECT id FROM transactions_transaction WHERE user_id = %s ORDER BY timestamp DESC, id DESC"
                " OFFSET %s LIMIT 1",
                [user, place],
            ).fetchone()
            for user, place in enumerate(places, 1)
        ]
    return [int(row[0]) for row in found if row]


def _moment(setting: Setting, running: Running) -> str:
    """Return the moment before the newest hundredth of those rows that have a large amount."""
    with setting.connect(running.variant.database) as connection:
        row = connection.execute(
            "SELECT percentile_disc(0.99) WITHIN GROUP (ORDER BY timestamp) FROM transactions_transaction"
            " WHERE user_id = 4 AND amount >= %s",
            [LARGE],
        ).fetchone()
    return row[0].isoformat() if row else ""


def _cursors(running: Running, numbers: list[int], *, backwards: bool = False) -> list[str]:
    variant = running.variant
    if not isinstance(variant, Shipped):
        raise BenchError("only this stack has cursors")
    lines = variant.python(MAKE_CURSORS, [(number, backwards) for number in numbers]).splitlines()
    return [quote(line) for line in lines]


class Client:
    """One account's connection, which is kept."""

    def __init__(self, running: Running, number: int) -> None:
        address = urlsplit(running.url)
        self.connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
        self.headers = {"Authorization": f"Bearer {running.tokens[number].access}", "Accept": "application/json"}

    def ask(self, path: str) -> tuple[float, int]:
        """Return how long one answer took, in milliseconds, and its status."""
        started = time.perf_counter()
        self._send(path)
        with self.connection.getresponse() as response:
            response.read()
        return (time.perf_counter() - started) * 1000, response.status

    def last_page(self, path: str) -> int:
        """Return the number of the last page, by the count that page 1 answers."""
        self._send(path)
        with self.connection.getresponse() as response:
            page = json.load(response)
        return max(1, int(page["count"]) // 10)

    def _send(self, path: str) -> None:
        if path == "POST":
            body = json.dumps({"amount": "-3.20", "description": "Coffee"})
            headers = {**self.headers, "Content-Type": "application/json"}
            self.connection.request("POST", "/api/transactions/", body, headers)
        else:
            self.connection.request("GET", path, headers=self.headers)


def ratio(answers: Sequence[Mapping[str, float]]) -> float:
    """Return how many times longer the slowest account waits than the quickest, whatever their sizes."""
    found = [answer["p50"] for answer in answers]
    return max(found) / min(found)


def flat(what: str, answers: Sequence[Mapping[str, float]]) -> Verdict:
    """Return whether all of these cost the same."""
    found = ratio(answers)
    return Verdict(what, f"ratio at most {FLAT:g}", f"{found:.2f}", found <= FLAT and answered(answers))


def answered(answers: Sequence[Mapping[str, float]]) -> bool:
    """Whether none of them is a refusal."""
    return all(answer["status"] == http.client.OK for answer in answers)


def verdict(name: str, answers: Sequence[Mapping[str, float]]) -> Verdict | None:
    """Return the target that belongs to a question, and whether it holds; None where there is none."""
    if name in {PAGE_1, *CURSORS}:
        return flat(name, answers)
    if name not in AT_MOST:
        return None
    last, most = answers[-1]["p50"], AT_MOST[name]
    return Verdict(name, f"at most {most:g} ms", f"{last:.1f} ms", last <= most and answered(answers))


def verdicts(figures: Mapping[str, Any]) -> list[Verdict]:
    """Return every target."""
    answers = figures["answers"]
    found = [judged for name, row in answers.items() if (judged := verdict(name, row))]
    # The first page has no position to begin at, and is a little cheaper.
    anywhere = [answer for name in CURSORS[1:] for answer in answers.get(name, ())]
    return [*found, flat("?cursor= at any depth, of any account", anywhere)] if anywhere else found


def target(name: str, answers: Sequence[Mapping[str, float]]) -> str:
    """Return the cell of a table that holds the target."""
    found = verdict(name, answers)
    return f"{found.wanted}: {found.word}" if found else ""


def spread(answers: Sequence[Mapping[str, float]]) -> str:
    """Return between which two figures half of the answers to the largest account lie."""
    return f"{answers[-1]['quarter']:.1f} to {answers[-1]['three_quarters']:.1f}"


def cell(answer: Mapping[str, float]) -> str:
    """Return one figure; the status as well, where it is no success."""
    figure = f"{answer['p50']:.1f}"
    return figure if answer["status"] < 300 else f"{figure} ({answer['status']:.0f})"


def table(figures: dict[str, object]) -> str:
    """Return the figures as text."""
    sizes, answers = figures["sizes"], figures["answers"]
    if not isinstance(sizes, (list, tuple)) or not isinstance(answers, dict):
        raise BenchError("these are no figures of growth")
    lines = ["p50 over HTTP in milliseconds, by the rows of the account that asks (a status where it is no success)"]
    lines.append(f"  {'':<38}" + "".join(f"{size:>14,}" for size in sizes) + f"{'half of those':>16}{'ratio':>8}")
    for name, row in answers.items():
        lines.append(
            f"  {name:<38}"
            + "".join(f"{cell(a):>14}" for a in row)
            + f"{spread(row):>16}{ratio(row):>8.2f}  {target(name, row)}"
        )
    return "\n".join([*lines, *(f"  {found}" for found in verdicts(figures) if found.what not in answers)])
