"""A pristine database for each test: PostgreSQL, or SQLite with no image but `tiny`.

The function `fill` runs once in a session, then the instance is kept as a snapshot. Each test gets a clone of it.
"""

import sqlite3
from contextlib import closing

import pytest

from vmctl.testing import golden

ACCOUNTS = 1000
LEDGER = "/srv/ledger.sqlite"
SCHEMA = """
CREATE TABLE account (id integer PRIMARY KEY, owner text NOT NULL, balance integer NOT NULL);
CREATE TABLE transfer (id integer PRIMARY KEY, source integer NOT NULL, target integer NOT NULL, amount integer);
"""
POSTGRES = {
    "ready": {"log": "ready to accept connections", "timeout": "180s"},  # a guest without KVM starts slowly
    "resources": {"memory": "512M"},
    "network": "none",
}


def pytest_addoption(parser):
    parser.addoption("--tests", type=int, default=1000, help="number of tests with PostgreSQL (default: 1000)")


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", range(metafunc.config.getoption("--tests") // 2))  # two functions


class Postgres:
    """The databases in an instance, by psql(1) inside of it."""

    def __init__(self, instance):
        self.instance = instance

    def run(self, *statements, database="postgres"):
        """Return the rows of the statements as text."""
        return self.instance.exec(psql(statements, database), check=True).out.strip()


def psql(statements, database="postgres"):
    """Return the command that executes SQL statements one by one, up to the first that fails."""
    words = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database]
    return [*words, *(word for statement in statements for word in ("-c", statement))]


def accounts_of_postgres(count=ACCOUNTS):
    """Return the statements that make the accounts."""
    rows = f"INSERT INTO account SELECT n, 'owner ' || n, 100 FROM generate_series(1, {count}) n"
    return *filter(str.strip, SCHEMA.split(";")), rows


def fill_postgres(instance):
    """The schema, and accounts with a balance of 100 each."""
    Postgres(instance).run(*accounts_of_postgres())


def fill_sqlite(instance):
    """The same with SQLite, whose file is made by the Python of this process."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(SCHEMA)
        rows = [(n, f"owner {n}", 100) for n in range(1, ACCOUNTS + 1)]
        database.executemany("INSERT INTO account VALUES (?, ?, ?)", rows)
        database.commit()
        instance.write(LEDGER, database.serialize())


postgres_instance = golden("postgres", **POSTGRES, prepare=fill_postgres)
sqlite_instance = golden("tiny", command=["sleep", "inf"], network="none", prepare=fill_sqlite)


@pytest.fixture
def postgres(postgres_instance):
    return Postgres(postgres_instance)
