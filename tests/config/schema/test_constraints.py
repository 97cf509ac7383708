"""Helpers that state constraints: which values pass, and what the message says of the others."""

from dataclasses import dataclass

import pytest

from rlhf_cli.config.schema.constraints import ConstraintError, positive, require, within


@dataclass(kw_only=True)
class Section:
    share: float = 0.5
    limit: int | None = None


@pytest.mark.parametrize(
    ("interval", "passing", "refused"),
    [("[0, 1]", (0, 0.5, 1), (-0.1, 1.1)), ("(0, 1)", (0.5,), (0, 1)), ("(1, inf)", (9e9,), (1,))],
)
def test_a_round_bracket_excludes_its_end(interval, passing, refused):
    for share in passing:
        within(Section(share=share), interval, "share")
    for share in refused:
        with pytest.raises(ConstraintError) as error:
            within(Section(share=share), interval, "share", unit="of all")
        assert str(error.value) == f"share={share} must lie in {interval} (of all)"


def test_null_passes_where_the_type_has_it():
    positive(Section(limit=None), "limit")
    with pytest.raises(ConstraintError, match=r"^limit=0 must be positive or null$"):
        positive(Section(limit=0), "limit")
    with pytest.raises(TypeError):
        positive(Section(share=None), "share")  # type: ignore[arg-type]


def test_keys_of_the_section_get_its_path():
    """The key itself, and those in the text that begin with a dot; the end of a sentence does not."""
    with pytest.raises(ConstraintError) as error:
        require(Section(), "share", False, "needs .limit=1 (not .other). See a.b")
    told = "a.b.share=0.5 needs a.b.limit=1 (not a.b.other). See a.b"
    assert error.value.message("a.b.") == told
    assert str(error.value) == told.replace("a.b.", "")
