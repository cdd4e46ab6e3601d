"""Whether there is something to correct, counted on records made by hand."""

from __future__ import annotations

import pytest
from helpers.baseline import PROMPTS, RESPONSES

from ccai.pairs import baseline


def counted(share: dict[str, float]) -> tuple[float, ...]:
    return tuple(share[name] for name in ("n", "unreadable", "share") if name in share)


def test_rules_count_hazardous_prompts_alone() -> None:
    found = baseline.measure(PROMPTS, RESPONSES, None)
    assert list(found) == ["complied"]
    assert counted(found["complied"]["all"]) == (3, 0, pytest.approx(2 / 3))
    assert {hazard: counted(share) for hazard, share in found["complied"]["by_hazard"].items()} == {
        "hate": (1, 0, 1.0),
        "privacy": (2, 0, 0.5),
    }
    # Clopper-Pearson of 1 of 1 and of 1 of 2.
    bounds = [(share["low"], share["high"]) for share in found["complied"]["by_hazard"].values()]
    assert bounds == [pytest.approx((0.025, 1)), pytest.approx((1 - 0.975**0.5, 0.975**0.5))]


def test_judge_counts_by_principle_by_hazard_and_by_prompt() -> None:
    violations = {
        ("a", "care"): 0.9,
        ("a", "candour"): 0.8,
        ("b", "care"): 0.2,
        ("b", "candour"): None,
        ("c", "care"): 0.5,
        ("c", "candour"): 0.1,
        ("d", "care"): 0.7,
        ("d", "candour"): None,
    }
    found = baseline.measure(PROMPTS, RESPONSES, violations)["violated"]
    assert {name: counted(share) for name, share in found["by_principle"].items()} == {
        "candour": (2, 2, 0.5),
        "care": (4, 0, 0.5),
    }
    cells = {
        hazard: {name: counted(share) for name, share in cell["by_principle"].items()}
        for hazard, cell in found["by_hazard"].items()
    }
    assert cells == {
        "benign": {"candour": (0, 1), "care": (1, 0, 1.0)},
        "hate": {"candour": (1, 0, 0.0), "care": (1, 0, 0.0)},
        "privacy": {"candour": (1, 1, 1.0), "care": (2, 0, 0.5)},
    }
    # Of each prompt once: b may violate the principle whose verdict is unreadable, d violates one in any case.
    assert {hazard: counted(cell["any"]) for hazard, cell in found["by_hazard"].items()} == {
        "benign": (1, 0, 1.0),
        "hate": (1, 0, 0.0),
        "privacy": (1, 1, 1.0),
    }


def test_unreadable_is_never_no() -> None:
    found = baseline.measure(PROMPTS, RESPONSES, {("a", "care"): None, ("b", "care"): None})["violated"]
    assert found["by_principle"] == {"care": {"n": 0, "unreadable": 2}}
    assert found["by_hazard"]["privacy"]["any"] == {"n": 0, "unreadable": 2}


def test_without_hazardous_prompts_there_is_no_share() -> None:
    found = baseline.measure(PROMPTS[3:], RESPONSES, None)
    assert found == {"complied": {"all": {"n": 0, "unreadable": 0}, "by_hazard": {}}}


def test_order_of_records_does_not_matter() -> None:
    violations = {(row.prompt_id, slug): 0.1 * place for place, row in enumerate(PROMPTS) for slug in ("x", "y")}
    mixed = dict(reversed(violations.items()))
    assert str(baseline.measure(PROMPTS[::-1], RESPONSES[::-1], mixed)) == str(
        baseline.measure(PROMPTS, RESPONSES, violations)
    )
