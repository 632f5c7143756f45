"""Names of owners."""

from itertools import product

from sleepgym.memory.owners import edit_of, row_of


def test_every_fact_has_names_of_its_own() -> None:
    parts = ("A", "B", "A|B", "B|A", "A\\", "\\|B", "|", "")
    keys = list(product(parts, repeat=2))
    assert len({name(key) for key in keys for name in (edit_of, row_of)}) == 2 * len(keys)


def test_the_usual_name_is_what_checkpoints_have() -> None:
    assert edit_of(("Tom Lork", "lives in")) == "edit:Tom Lork|lives in"
    assert row_of(("Tom Lork", "lives in")) == "row:Tom Lork|lives in"
