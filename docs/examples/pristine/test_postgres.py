"""1,000 tests (`--tests N` for fewer), each of which writes to the same rows; none finds what another one has written.

The image is built once: `vmctl image build postgres`. Then `pytest -n 2 docs/examples/pristine`, as any user.
"""

from conftest import ACCOUNTS


def test_a_transfer_finds_a_pristine_database(postgres, case):
    source, target = case % ACCOUNTS + 1, (case + 1) % ACCOUNTS + 1
    found = postgres.run(
        f"UPDATE account SET balance = balance - 1 WHERE id = {source}",
        f"UPDATE account SET balance = balance + 1 WHERE id = {target}",
        f"INSERT INTO transfer VALUES (1, {source}, {target}, 1)",  # a second transfer 1 would be an error
        "SELECT count(*), sum(balance), min(balance), max(balance), (SELECT count(*) FROM transfer) FROM account",
    )
    assert found == f"{ACCOUNTS}|{100 * ACCOUNTS}|99|101|1"


def test_a_dropped_table_is_gone_for_one_test_only(postgres, case):
    assert postgres.run("SELECT count(*) FROM transfer") == "0"
    postgres.run("DROP TABLE transfer", "TRUNCATE account")
    assert postgres.run("SELECT count(*) FROM account") == "0"
