"""Probes in an evaluation: those that fit, what is left out with its reason, and their figures."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlhf_cli.artifacts.results import select
from rlhf_cli.config.keys import probes_file
from rlhf_cli.config.schema import LongText
from rlhf_cli.data.probes import read_probes
from rlhf_cli.data.templates import build
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.evaluate.probes import Probes
from tests.support.data_fixtures import byte_tokenizer
from tests.support.small_stages import changed, little

SHORT = "{prompt: what is hot, better: fire is hot, worse: ice}"
LONG = f"{{prompt: what is hot, better: fire, worse: {'ice ' * 40}}}"


@pytest.fixture(scope="module")
def context():
    return open_context(little())


@pytest.fixture
def probes_of(context, tmp_path):
    """Return probes_of(content, **keys): the probes of a file with this content."""

    def made(content=None, renderer=context.renderer, **values):
        (tmp_path / "mine.yaml").write_text(content or "")
        named = {"evaluation.probes": str(tmp_path / "mine.yaml")} if content else {}
        cfg = changed(context.cfg, named | values)
        return Probes.of(replace(context, cfg=cfg, renderer=renderer))

    return made


def reward_model(renderer=None):
    """Return a reward model of the length of the text, with a tokenizer of its own if one is given."""
    return SimpleNamespace(
        renderer=renderer,
        score_answers=lambda answers: torch.tensor([float(len(a.text)) for a in answers]),
    )


def test_the_probes_that_fit_are_scored_and_the_others_counted(probes_of):
    probes = probes_of(f"one:\n- {SHORT}\n- {LONG}\ntwo:\n- {SHORT}\n")
    assert [one.record.meta["subset"] for one in probes.comparisons] == ["one", "two"]
    assert [one.messages[0].content for one in probes.prompts] == ["what is hot"] * 2
    (missing,) = probes.missing
    assert missing.startswith("probes: 1 of 3 do not fit (response too long: ")
    assert missing.endswith("data.max_response_tokens=12): these are left out")
    figures = probes.figures({"mine": reward_model()})
    found = {one.group: (one.value, one.count) for one in select(figures, measure="accuracy")}
    assert found == {None: (1.0, 2), "one": (1.0, 1), "two": (1.0, 1)}


def test_a_text_that_would_be_cut_does_not_fit(probes_of):
    """Long texts of the data are cut; a probe without its end would be another one."""
    content = f"one:\n- {{prompt: {'is it hot ' * 20}, better: ice, worse: fire}}\n"
    probes = probes_of(content, **{"data.long_prompts": LongText.truncate})
    assert probes.comparisons == []
    assert "prompt too long" in probes.missing[0]


def test_fewer_than_half_of_the_probes_are_not_scored(probes_of):
    probes = probes_of(f"one:\n- {SHORT}\n- {LONG}\n- {LONG}\n")
    assert probes.comparisons == [] and probes.missing[0].endswith(": none is scored")
    assert probes.missing[0].startswith("probes: 2 of 3 do not fit")
    assert probes.figures({"mine": reward_model()}) == []


def test_probes_are_left_out_where_a_tokenizer_cannot_carry_them(probes_of):
    renderer = build(byte_tokenizer(eos_token="</s>"), template="plain", system=None)
    content = "one:\n- {prompt: aé, better: éééé, worse: é}\n"
    probes = probes_of(content, renderer=renderer, **{"data.max_prompt_tokens": 60})
    assert probes.comparisons == []
    # 12 of the 13 bytes are halves of é
    assert probes.missing == [
        "probes: the tokenizer of the policy does not know 92% of their tokens; none is scored"
    ]
    mine = probes_of(f"one:\n- {SHORT}\n")
    words = Tokenizer(models.WordLevel({"?": 0, "is": 1, "hot": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    other = reward_model(SimpleNamespace(tokenizer=words))
    figures = mine.figures({"mine": reward_model(), "other": other})
    assert {one.judge for one in select(figures, measure="accuracy")} == {"mine"}
    # what, fire and ice, of 7 words
    assert mine.missing == [
        "probes: the tokenizer of other does not know 43% of their tokens; none is scored"
    ]


def test_the_shipped_probes_are_read_unless_there_are_to_be_none(probes_of):
    room = {"data.max_prompt_tokens": 80, "data.max_response_tokens": 160}
    whole = probes_of(**room)
    assert whole.missing == []
    assert [one.record for one in whole.comparisons] == read_probes(probes_file("probes"))
    none = probes_of(**room, **{"evaluation.probes": None})
    assert none.comparisons == none.missing == none.figures({"mine": reward_model()}) == []
