"""The same with SQLite and the image `tiny`, which is there after the set-up: a few seconds."""

import sqlite3
from contextlib import closing

import pytest
from conftest import ACCOUNTS, LEDGER


@pytest.fixture
def ledger(sqlite_instance, tmp_path):
    """A function that executes a statement on the database in the instance and returns the rows."""

    def execute(statement):
        path = tmp_path / "ledger.sqlite"
        path.write_bytes(sqlite_instance.read(LEDGER))
        with closing(sqlite3.connect(path)) as database:
            rows = database.execute(statement).fetchall()
            database.commit()
        sqlite_instance.write(LEDGER, path.read_bytes())
        return rows

    return execute


@pytest.mark.parametrize("number", range(6))
def test_a_transfer_finds_a_pristine_database(ledger, number):
    assert ledger("SELECT count(*) FROM transfer") == [(0,)]
    ledger(f"INSERT INTO transfer VALUES (1, {number}, {number + 1}, 1)")
    ledger(f"UPDATE account SET balance = balance - 1 WHERE id = {number + 1}")
    assert ledger("SELECT count(*), sum(balance) FROM account") == [(ACCOUNTS, 100 * ACCOUNTS - 1)]
    assert ledger("SELECT * FROM transfer") == [(1, number, number + 1, 1)]


def test_a_dropped_table_is_gone_for_one_test_only(ledger):
    ledger("DROP TABLE transfer")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        ledger("SELECT count(*) FROM transfer")
