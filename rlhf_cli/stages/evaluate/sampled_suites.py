"""Suites whose answers are sampled: toxicity, bias, XSTest. Every answer is kept for a person to read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.core.randomness import stream_seed
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.evaluation.respond import respond
from rlhf_cli.evaluation.suites.bias import bias_figures
from rlhf_cli.evaluation.suites.refusals import is_refusal, refusal_figures
from rlhf_cli.evaluation.suites.rows import Beginning, SafetyPrompt
from rlhf_cli.evaluation.suites.toxicity import toxicity_figures
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.evaluate.text_scorers import TextScorer
from rlhf_cli.stages.samples import conversation_text, num_tokens


@dataclass(slots=True, kw_only=True)
class SuiteSampler:
    """Asks a model. entries: every answer so far, as it is written to suite_answers.jsonl."""

    context: StageContext
    entries: list[dict[str, Any]] = field(default_factory=list)

    def texts(
        self,
        network: Network,
        prompts: Sequence[EncodedPrompt],
        *,
        seeds: list[int],
        temperature: float,
    ) -> list[str]:
        """Return an answer per prompt and seed, those of the first prompt first."""
        context = self.context
        with context.clock.phase("generate"):
            tries = respond(
                network,
                [prompt.ids for prompt in prompts],
                context.renderer,
                context.sampling_params(temperature=temperature),
                context.world,
                batch=context.cfg.evaluation.batch,
                seeds=seeds,
            )
        context.clock.count(generated=num_tokens(tries))
        return [one.text for answers in zip(*tries, strict=True) for one in answers]

    def continuations(
        self, network: Network, prompts: Sequence[EncodedPrompt], *place: str
    ) -> list[str]:
        """Return evaluation.suites.samples answers per prompt, of the random numbers of this place."""
        cfg = self.context.cfg
        num = cfg.evaluation.suites.samples
        seeds = [stream_seed(cfg.seed, "suites", *place, i) for i in range(num)]
        return self.texts(network, prompts, seeds=seeds, temperature=1.0)

    def keep(
        self,
        names: dict[str, str],
        prompts: Sequence[EncodedPrompt],
        groups: Sequence[str],
        texts: Sequence[str],
        **scores: Sequence[float],
    ) -> None:
        """Keep equally many answers per prompt, with their scores. groups: of each prompt."""
        num = len(texts) // len(prompts)
        for i, text in enumerate(texts):
            shown = conversation_text(prompts[i // num].messages)
            entry = names | {"group": groups[i // num], "prompt": shown, "response": text}
            self.entries.append(entry | {name: values[i] for name, values in scores.items()})


@dataclass(slots=True, kw_only=True)
class ToxicitySuite:
    """The same beginnings under every instruction. rounds: {instruction: prompts}."""

    sampler: SuiteSampler
    rounds: dict[str, list[EncodedPrompt]]
    scorer: TextScorer

    def figures(self, policy: str, network: Network) -> list[Figure]:
        """Return the three figures of every round."""
        found, names = [], {"suite": "toxicity", "model": policy}
        for group, prompts in self.rounds.items():
            texts = self.sampler.continuations(network, prompts, "toxicity", group)
            scores = self.scorer.score(texts)
            groups = [group] * len(prompts)
            self.sampler.keep(names, prompts, groups, texts, toxicity=scores.tolist())
            scores, judge = scores.view(len(prompts), -1), self.scorer.name
            found += toxicity_figures(scores, policy=policy, group=group, judge=judge)
        return found


@dataclass(slots=True, kw_only=True)
class BiasSuite:
    """Beginnings about several groups. scorers: {measure: scorer}."""

    sampler: SuiteSampler
    asked: list[tuple[Beginning, EncodedPrompt]]
    scorers: dict[str, TextScorer]

    def figures(self, policy: str, network: Network) -> list[Figure]:
        """Return means by group, gaps and p-values, of every measure."""
        prompts = [prompt for _, prompt in self.asked]
        groups = [row.group for row, _ in self.asked]
        texts = self.sampler.continuations(network, prompts, "bias")
        scores = {name: scorer.score(texts) for name, scorer in self.scorers.items()}
        listed = {name: values.tolist() for name, values in scores.items()}
        names = {"suite": "bias", "model": policy}
        self.sampler.keep(names, prompts, groups, texts, **listed)
        return [
            figure
            for name, values in scores.items()
            for figure in bias_figures(
                f"bias/{name}",
                values.view(len(prompts), -1).mean(1),
                groups,
                [row.context for row, _ in self.asked],
                seed=self.sampler.context.cfg.seed,
                policy=policy,
                judge=self.scorers[name].name,
            )
        ]


@dataclass(slots=True, kw_only=True)
class RefusalSuite:
    """Requests to be answered or refused; the likeliest token is taken each time, as XSTest does."""

    sampler: SuiteSampler
    asked: list[tuple[SafetyPrompt, EncodedPrompt]]

    def figures(self, policy: str, network: Network) -> list[Figure]:
        """Return the shares of refusals."""
        rows, prompts = [row for row, _ in self.asked], [prompt for _, prompt in self.asked]
        seeds = [self.sampler.context.cfg.seed]
        texts = self.sampler.texts(network, prompts, seeds=seeds, temperature=0.0)
        refused = [is_refusal(text) for text in texts]
        names, kinds = {"suite": "xstest", "model": policy}, [row.kind for row in rows]
        self.sampler.keep(names, prompts, kinds, texts, refused=refused)
        return refusal_figures(rows, refused, policy=policy)
