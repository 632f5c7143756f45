"""Every family of models that can be built offline takes edits and gives them back, or is refused with a reason."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "architectures.py"
DOCUMENT = Path(__file__).parents[2] / "docs" / "architectures.md"


def script():
    spec = importlib.util.spec_from_file_location("architectures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["architectures"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


ARCHITECTURES = script()


@pytest.mark.parametrize("family", ARCHITECTURES.DENSE)
def test_five_facts_are_recalled_and_reverted_without_a_trace(family):
    row = ARCHITECTURES.examine(ARCHITECTURES.DENSE[family])
    assert row.recalled == ARCHITECTURES.FACTS
    assert row.reverted
    assert row.untouched


@pytest.mark.parametrize(
    ("reason", "family"), [(reason, family) for reason, group in ARCHITECTURES.REFUSED.items() for family in group]
)
def test_what_cannot_be_edited_is_refused_with_the_reason(reason, family):
    _, message = ARCHITECTURES.refusal(ARCHITECTURES.REFUSED[reason][family])
    assert reason in message


def test_document_lists_every_family():
    text = DOCUMENT.read_text(encoding="utf-8")
    refused = [family for group in ARCHITECTURES.REFUSED.values() for family in group]
    assert all(f"| {family} |" in text for family in [*ARCHITECTURES.DENSE, *refused])
