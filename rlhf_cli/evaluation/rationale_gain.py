"""How much likelier an answer is after a rationale: a difference of exact log-probs.

Both are of the answer with its full stop and the end token, as a chain of thought states it: after
"The answer is", which follows the rationale or, without one, the question. The question stands alone:
neither the answer nor exemplars come before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlhf_cli.config.schema import Data
from rlhf_cli.data.encode import encode_prompt
from rlhf_cli.data.records import Message, Origin, Prompt, RowError
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.tasks.render import STEP_BY_STEP, chain_target
from rlhf_cli.evaluation.likelihood import Continuation, log_likelihoods
from rlhf_cli.evaluation.rationale_checks import Rationale, without_answer
from rlhf_cli.runtime.engine import Network
from rlhf_cli.runtime.world import World


@dataclass(slots=True, kw_only=True)
class Scorer:
    """The model that judges, with its own tokens. room: its positions, None for any number."""

    network: Network
    renderer: Renderer
    data: Data
    room: int | None
    batch: int
    world: World

    def scored(self, found: Sequence[Rationale]) -> list[Rationale]:
        """Return the rationales with their gains; one that is not complete has none."""
        asked = {i: rows for i, one in enumerate(found) if (rows := self._three(one))}
        different = {_key(row): row for rows in asked.values() for row in rows}
        logprobs = log_likelihoods(
            self.network,
            list(different.values()),
            pad_id=self.renderer.pad_id,
            batch=self.batch,
            world=self.world,
        )
        known = dict(zip(different, logprobs.tolist(), strict=True))
        gains = {}
        for i, rows in asked.items():
            alone, unstated, stated = (known[_key(row)] for row in rows)
            gains[i] = {"gain": unstated - alone, "gain_stated": stated - alone}
        return [replace(one, **gains.get(i, {})) for i, one in enumerate(found)]

    def _three(self, one: Rationale) -> list[Continuation] | None:
        """Return the answer without the rationale, after what does not state it, and after all of it."""
        texts = ["", without_answer(one.rationale, one.answer), one.rationale]
        try:
            prompt = encode_prompt(self.renderer, _question(one), self.data).ids
            rows = [self._answer_after(prompt, text, one.answer) for text in texts]
        except RowError:
            return None
        longest = max(len(row.prompt_ids) + len(row.ids) for row in rows)
        return rows if one.is_complete and longest <= (self.room or longest) else None

    def _answer_after(self, prompt: list[int], rationale: str, answer: str) -> Continuation:
        """Return the answer's tokens: from the first one that a text without it does not begin with."""
        whole = chain_target(rationale, answer).lstrip("\n")
        before = whole.removesuffix(f" {answer}.")
        ids, shown = self.renderer.response_ids(whole), self.renderer.response_ids(before)[:-1]
        pairs = enumerate(zip(ids, shown, strict=False))
        start = next((i for i, (a, b) in pairs if a != b), min(len(ids), len(shown)))
        return Continuation(prompt_ids=prompt + ids[:start], ids=ids[start:])


def _question(one: Rationale) -> Prompt:
    message = Message("user", f"{one.question}\n{STEP_BY_STEP}")
    return Prompt((message,), Origin(one.origin, one.row))


def _key(row: Continuation) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(row.prompt_ids), tuple(row.ids)
