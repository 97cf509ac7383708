"""How different a policy's responses are: to the same input, and to different inputs (Kirk et al. 2024)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import torch
from torch import Tensor

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.core.estimates import mean_interval, ratio_interval, wilson_interval
from rlhf_cli.core.randomness import stream_seed
from rlhf_cli.data.embedded import EmbeddedTask
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.evaluation.diversity import (
    ORDERS,
    cosine_distance,
    ead_by_order,
    mean_ead,
    nli_distance,
    repeats_itself,
)
from rlhf_cli.evaluation.respond import Answer, response_entropies
from rlhf_cli.evaluation.self_bleu import self_bleu
from rlhf_cli.evaluation.text_models import TextModel, open_encoder, open_nli
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.samples import sample_each

PART = "diversity"


@dataclass(slots=True, kw_only=True)
class Diversity:
    """The prompts that are answered, and the models that compare responses, where they are named.

    prompts: the inputs first, as many as num_inputs; then further ones of which several answers are right
    by the embedded task, and whose different right answers alone are counted. samples: of each policy
    that was measured n lists of one answer per input.
    """

    context: StageContext
    prompts: list[EncodedPrompt]
    num_inputs: int
    task: EmbeddedTask | None
    embedder: TextModel | None
    nli: TextModel | None
    samples: dict[str, list[list[Answer]]] = field(default_factory=dict)

    def figures(self, policy: str, network: Network) -> list[Figure]:
        """Sample responses of a policy from a random stream of their own; return its figures."""
        cfg = self.context.cfg
        seeds = [stream_seed(cfg.seed, PART, i) for i in range(cfg.evaluation.diversity.samples)]
        tries = sample_each(self.context, network, self.prompts, seeds)
        self.samples[policy] = [answers[: self.num_inputs] for answers in tries]
        answers = [list(one) for one in zip(*tries, strict=True)]
        every = [[answer.text for answer in responses] for responses in answers]
        texts = every[: self.num_inputs]
        with self.context.clock.phase("score"):
            found = [
                *ead_figures(texts, cfg.evaluation.diversity.vocab),
                *of_sets("self_bleu", *_each(self_bleu, texts)),
                *self._distances(texts),
                repetition(texts),
                self._entropy(network, answers[: self.num_inputs]),
                *self._distinct_right(every),
            ]
        return [replace(one, policy=policy) for one in found]

    def _distances(self, texts: list[list[str]]) -> list[Figure]:
        """Return the cosine and the NLI distance, where their models are named."""
        found = []
        if self.embedder is not None:
            flat = [text for responses in texts for text in responses]
            states = self.embedder.embeddings(flat).view(len(texts), len(texts[0]), -1)
            within = [cosine_distance(one) for one in states]
            found += of_sets("cosine", torch.tensor(within), cosine_distance(states[:, 0]))
        if self.nli is not None:
            *within, across = nli_distances(self.nli, [*texts, first_of(texts)])
            found += of_sets("nli", torch.tensor(within), across)
        return found

    def _entropy(self, network: Network, answers: list[list[Answer]]) -> Figure:
        """Return the mean entropy of the policy at the tokens of its own samples, nats per token."""
        flat = [answer for responses in answers for answer in responses]
        cfg, context = self.context.cfg.evaluation, self.context
        sums = response_entropies(
            network, flat, pad_id=context.renderer.pad_id, batch=cfg.batch, world=context.world
        )
        counts = torch.tensor([len(answer.ids) for answer in flat])
        shape = (len(answers), -1)
        interval = ratio_interval(sums.view(shape).sum(1), counts.view(shape).sum(1))
        return Figure.of(interval, part=PART, measure="entropy", count=len(answers))

    def _distinct_right(self, texts: list[list[str]]) -> list[Figure]:
        """Return how many different right answers the samples find, where a prompt has several."""
        if self.task is None:
            return []
        found = []
        for prompt, responses in zip(self.prompts, texts, strict=True):
            contents = [self.task.content_of(prompt.record.meta, text) for text in responses]
            if contents[0].many:
                found.append(float(len({one.right for one in contents} - {None})))
        return means("distinct_right", torch.tensor(found))


def open_diversity(
    context: StageContext, prompts: Sequence[EncodedPrompt], task: EmbeddedTask | None
) -> Diversity | None:
    """Load what compares responses; None where diversity is off, or there are no two inputs.

    prompts: those of the evaluation, in a random order; the first ones are the inputs.
    """
    cfg = context.cfg.evaluation.diversity
    if not cfg.samples or len(prompts) < 2:
        return None
    several = [
        prompt
        for prompt in prompts[cfg.inputs :]
        if task is not None and task.content_of(prompt.record.meta, "").many
    ]
    place = {
        "device": context.device, "batch": context.cfg.evaluation.batch, "world": context.world,
    }  # fmt: skip
    embedder = nli = None
    if cfg.embedder is not None:
        embedder = open_encoder("evaluation.diversity.embedder", cfg.embedder, **place)
    if cfg.nli is not None:
        nli = open_nli("evaluation.diversity.nli", cfg.nli, **place)
    return Diversity(
        context=context,
        prompts=[*prompts[: cfg.inputs], *several],
        num_inputs=min(cfg.inputs, len(prompts)),
        task=task,
        embedder=embedder,
        nli=nli,
    )


def first_of(texts: list[list[str]]) -> list[str]:
    """Return one response per input."""
    return [responses[0] for responses in texts]


def _each(measure, texts: list[list[str]]) -> tuple[Tensor, float]:
    """Return a measure of each input's responses, and that of one response per input."""
    within = [measure(responses) for responses in texts]
    return torch.tensor(within, dtype=torch.float64), measure(first_of(texts))


def ead_figures(texts: list[list[str]], vocab: int) -> list[Figure]:
    """Return the EAD averaged over n, and of each n alone as a group."""
    within = torch.stack([ead_by_order(responses, vocab) for responses in texts])
    across = ead_by_order(first_of(texts), vocab)
    found = of_sets("ead", mean_ead(within), float(mean_ead(across)))
    for place, n in enumerate(ORDERS):
        found += of_sets("ead", within[:, place], float(across[place]), group=str(n))
    return found


def of_sets(
    measure: str, within: Tensor, across: float, *, group: str | None = None
) -> list[Figure]:
    """Return the mean over inputs of their own values, its spread over inputs, and the value across inputs.

    within: a value per input, (inputs,). across: that of one response per input. nan: there is none.
    """
    known, names = within[~within.isnan()], {"part": PART, "group": group}
    found = means(f"{measure}/per_input", known, group=group)
    if len(known) > 1:
        name, spread = f"{measure}/per_input_std", known.double().std().item()
        found.append(Figure(measure=name, value=spread, count=len(known), **names))
    if not math.isnan(across):
        name = f"{measure}/across_input"
        found.append(Figure(measure=name, value=across, count=len(within), **names))
    return found


def means(measure: str, values: Tensor, *, group: str | None = None) -> list[Figure]:
    """Return the mean over inputs; with its interval where there are two, nothing where there is none."""
    names = {"part": PART, "measure": measure, "group": group, "count": len(values)}
    if len(values) < 2:
        return [Figure(value=float(value), **names) for value in values]
    return [Figure.of(mean_interval(values), **names)]


def repetition(texts: list[list[str]]) -> Figure:
    """Return the share of responses that repeat a 4-gram; the interval takes an input as one trial."""
    shares = [sum(map(repeats_itself, responses)) / len(responses) for responses in texts]
    interval = wilson_interval(sum(shares), len(shares))
    return Figure.of(interval, part=PART, measure="repetition", count=len(shares))


def nli_distances(model: TextModel, sets: list[list[str]]) -> list[float]:
    """Return the NLI distance of each set of texts; all pairs are read together."""
    pairs = [pair for texts in sets for pair in permutations(texts, 2)]
    scores, found = model.nli(pairs), []
    for texts in sets:
        size = len(texts)
        own, scores = scores[: size * (size - 1)], scores[size * (size - 1) :]
        matrix = torch.zeros(size, size)
        matrix[~torch.eye(size, dtype=torch.bool)] = own
        found.append(nli_distance(matrix))
    return found
