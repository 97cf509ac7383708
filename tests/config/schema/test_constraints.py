"""Functions that state constraints: the values they accept, and their messages."""

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
def test_within_excludes_an_end_with_a_round_bracket(interval, passing, refused):
    for share in passing:
        within(Section(share=share), interval, "share")
    for share in refused:
        with pytest.raises(ConstraintError) as error:
            within(Section(share=share), interval, "share", unit="of all")
        assert str(error.value) == f"share={share} must lie in {interval} (of all)"


def test_null_is_accepted_where_the_type_allows_it():
    positive(Section(limit=None), "limit")
    with pytest.raises(ConstraintError, match=r"^limit=0 must be positive or null$"):
        positive(Section(limit=0), "limit")
    with pytest.raises(TypeError):
        positive(Section(share=None), "share")  # type: ignore[arg-type]


def test_messages_name_the_keys_of_a_section_with_their_path():
    """The key and the words of the text that begin with a dot are keys; a full stop is not."""
    with pytest.raises(ConstraintError) as error:
        require(Section(), "share", False, "needs .limit=1 (not .other). See a.b")
    expected = "a.b.share=0.5 needs a.b.limit=1 (not a.b.other). See a.b"
    assert error.value.message("a.b.") == expected
    assert str(error.value) == expected.replace("a.b.", "")
