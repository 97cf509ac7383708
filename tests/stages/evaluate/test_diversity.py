"""The diversity of a policy: what is sampled, what is measured of it, and the keys that decide it."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from rlhf_cli.artifacts.results import select
from rlhf_cli.data.embedded import task_of
from rlhf_cli.evaluation.diversity import cosine_distance, per_input_ead
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.evaluate import diversity
from rlhf_cli.stages.evaluate.diversity import (
    ead_figures,
    nli_distances,
    open_diversity,
    repetition,
)
from rlhf_cli.stages.samples import sample_each
from tests.support.small_stages import changed, little

TASK = task_of("tiny_world:prompts")
FEW = {"evaluation.diversity.inputs": 4, "evaluation.diversity.samples": 3}
OFF = {"evaluation.diversity.samples": 0}


@pytest.fixture(scope="module")
def opened():
    """Return the context, held-out prompts, and the base model."""
    context = open_context(little())
    prompts = list(context.encoded("prompts").held_out)
    return context, prompts, context.network(context.causal_lm())


def figures_of(opened, values):
    context, prompts, network = opened
    context.cfg = changed(little(), FEW | values)
    return open_diversity(context, prompts, TASK).figures("base", network)


def value_of(figures, measure, group=None):
    (found,) = select(figures, measure=measure, group=group)
    return found.value


@pytest.fixture(scope="module")
def plain(opened):
    return figures_of(opened, {})


def test_every_measure_is_there_once_with_its_policy(plain):
    names = [(one.measure, one.group) for one in plain]
    assert len(names) == len(set(names))
    assert {one.policy for one in plain} == {"base"} and {one.part for one in plain} == {
        "diversity"
    }
    both = ("ead", "self_bleu")
    sets = {f"{m}/{of}" for m in both for of in ("per_input", "per_input_std", "across_input")}
    assert {one.measure for one in plain} == {*sets, "entropy", "repetition", "distinct_right"}
    assert {one.group for one in select(plain, measure="ead/across_input")} >= {None, "1", "5"}


def test_responses_have_a_random_stream_of_their_own(opened, plain):
    """The figures are those of the texts sampled from it, and the same every time."""
    context, prompts, network = opened
    assert figures_of(opened, {}) == plain
    assert figures_of(opened, {"seed": 2}) != plain
    context.cfg = changed(little(), FEW)
    seeds = [diversity.stream_seed(1, "diversity", i) for i in range(3)]
    tries = sample_each(context, network, prompts[:4], seeds)
    texts = [[answers[i].text for answers in tries] for i in range(4)]
    within = per_input_ead(texts, 50257)
    assert value_of(plain, "ead/per_input") == pytest.approx(float(within.mean()))
    assert value_of(plain, "ead/per_input_std") == pytest.approx(float(within.std()))
    across = per_input_ead([[responses[0] for responses in texts]], 50257)
    assert value_of(plain, "ead/across_input") == pytest.approx(float(across))


def test_the_number_of_inputs_and_of_samples_and_the_vocabulary_are_those_configured(opened, plain):
    (found,) = select(plain, measure="self_bleu/per_input")
    assert found.count == 4
    more = figures_of(opened, {"evaluation.diversity.inputs": 6})
    assert select(more, measure="self_bleu/per_input")[0].count == 6
    assert select(more, measure="self_bleu/across_input")[0].count == 6
    pairs = figures_of(opened, {"evaluation.diversity.samples": 2})
    assert value_of(pairs, "ead/per_input") != value_of(plain, "ead/per_input")
    few_words = figures_of(opened, {"evaluation.diversity.vocab": 100})
    assert value_of(few_words, "ead/per_input") > value_of(plain, "ead/per_input") + 0.01
    assert value_of(few_words, "self_bleu/per_input") == value_of(plain, "self_bleu/per_input")


def test_without_samples_or_a_second_prompt_there_is_nothing_to_measure(opened):
    context, prompts, _ = opened
    context.cfg = changed(little(), FEW)
    assert open_diversity(context, prompts[:1], TASK) is None
    context.cfg = changed(little(), OFF)
    assert open_diversity(context, prompts, TASK) is None


def test_named_models_add_their_distances(opened, plain, monkeypatch):
    """Each is opened with its own path, and what is not named is not opened."""

    def of_lengths(key, path, **place):
        assert place["batch"] == little().evaluation.batch
        assert key.endswith(path)
        return SimpleNamespace(
            embeddings=lambda texts: torch.tensor([[1.0, len(text)] for text in texts]),
            nli=fake_nli,
        )

    monkeypatch.setattr(diversity, "open_encoder", of_lengths)
    monkeypatch.setattr(diversity, "open_nli", of_lengths)
    for measure, name in (("cosine", "embedder"), ("nli", "nli")):
        found = figures_of(opened, {f"evaluation.diversity.{name}": name})
        more = {one.measure for one in found} - {one.measure for one in plain}
        assert more == {f"{measure}/{of}" for of in ("per_input", "per_input_std", "across_input")}


def fake_nli(pairs):
    """Score a pair by its texts, and differently in its two directions."""
    return torch.tensor([len(a) / 10 - len(b) / 100 for a, b in pairs])


def test_whole_responses_are_compared_in_both_directions():
    """The published code draws single characters of them where it means sentences."""
    seen = []
    model = SimpleNamespace(nli=lambda pairs: seen.extend(pairs) or fake_nli(pairs))
    sets = [["a cat", "it is cold", "x"], ["it is", "cold"]]
    found = nli_distances(model, sets)
    for texts, distance in zip(sets, found, strict=True):
        pairs = list(itertools.combinations(texts, 2))
        scores = [float(fake_nli([(a, b), (b, a)]).sum()) for a, b in pairs]
        assert distance == pytest.approx(sum(scores) / len(scores))
    assert set(seen) == {pair for texts in sets for pair in itertools.permutations(texts, 2)}


def test_embeddings_are_compared_within_an_input_and_across_inputs(opened):
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [1.0, 1.0]}
    embedder = SimpleNamespace(
        embeddings=lambda texts: torch.tensor([vectors[text] for text in texts])
    )
    part = diversity.Diversity(
        context=opened[0], prompts=[], num_inputs=0, task=None, embedder=embedder, nli=None
    )
    found = part._distances([["a", "b"], ["c", "c"]])
    assert value_of(found, "cosine/per_input") == pytest.approx((1 + 0) / 2)
    expected = cosine_distance(torch.tensor([vectors["a"], vectors["c"]]))
    assert value_of(found, "cosine/across_input") == pytest.approx(expected)


def test_different_right_answers_are_counted_where_there_are_several(opened, monkeypatch):
    context, prompts, network = opened
    context.cfg = changed(little(), FEW | {"evaluation.diversity.inputs": 2})
    part = open_diversity(context, prompts, TASK)
    several = [p for p in prompts if p.record.meta["count"]]
    assert several and [p for p in part.prompts if p.record.meta["count"]] == several
    assert part.num_inputs == 2 and part.prompts[:2] == prompts[:2]
    assert all(p.record.meta["count"] for p in part.prompts[2:])
    wanted = ["- {1}\n- {0}", "{0}, {1}", "Sure! {0}, {0}"]

    def answered(context, network, prompts, seeds):
        return [
            [
                Answer(
                    prompt_ids=p.ids,
                    ids=[1],
                    text=text.format(*(p.record.meta["answer"].split(", ") * 2)),
                    finished=True,
                )
                for p in prompts
            ]
            for text in wanted
        ]

    monkeypatch.setattr(diversity, "sample_each", answered)
    figures = part.figures("base", network)
    (found,) = select(figures, measure="distinct_right")
    twos = sum(p.record.meta["count"] == 2 for p in several)
    assert (found.value, found.count) == (pytest.approx(twos / len(several)), len(several))
    assert len(part.prompts) > 2 and select(figures, measure="entropy")[0].count == 2
    assert select(figures, measure="self_bleu/across_input")[0].count == 2
    without_task = open_diversity(context, prompts, None)
    assert len(without_task.prompts) == 2
    assert not select(without_task.figures("base", network), measure="distinct_right")


def test_an_order_that_no_input_has_is_left_out():
    found = ead_figures([["a b", "a c"], ["a", "b"]], 50257)
    assert {one.group for one in found} == {None, "1", "2"}
    assert select(found, group="2", measure="ead/per_input")[0].count == 1
    assert select(found, group="2", measure="ead/per_input")[0].low is None
    assert select(found, group="2", measure="ead/across_input")[0].count == 2


def test_repetition_is_the_share_of_responses():
    again = "no no no no no no no"
    found = repetition([[again, "a"], ["a", "b"], [again, again]])
    assert found.value == pytest.approx(0.5) and found.count == 3
    assert found.low < 0.2 and found.high > 0.8
