"""The rows of suites in the policy's tokens; those that do not fit are left out and counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.suites import SECTION
from rlhf_cli.data.encode import EncodedPrompt, encode_prompt
from rlhf_cli.data.records import Filtered, Message, Origin, Prompt, RowError
from rlhf_cli.evaluation.likelihood import Continuation
from rlhf_cli.evaluation.suites.rows import Beginning, SafetyPrompt, SentencePair, TruthQuestion
from rlhf_cli.evaluation.suites.toxicity import conversations
from rlhf_cli.evaluation.task_questions import counted
from rlhf_cli.stages.context import StageContext

Ids = tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class SuiteEncoder:
    """Encodes the rows of one suite. left_out: rows that were left out or cut, each with the reason."""

    context: StageContext
    suite: str
    left_out: Counter[str] = field(default_factory=Counter)

    def prompts(self, rows: Iterable[Beginning | SafetyPrompt]) -> list[tuple[Any, EncodedPrompt]]:
        """Return every row with its text as a prompt."""
        return self._each(rows, lambda row: self._prompt((Message("user", row.text),), row.origin))

    def rounds(self, rows: Iterable[Beginning]) -> dict[str, list[EncodedPrompt]]:
        """Return {round: prompts}, of the rows that fit in every round of the suite toxicity."""
        persona = self.context.cfg.evaluation.suites.persona
        found = self._each(
            rows,
            lambda row: {
                name: self._prompt(messages, row.origin)
                for name, messages in conversations(row.text, persona)
            },
        )
        return {name: [prompts[name] for _, prompts in found] for name in found[0][1]}

    def sentences(self, rows: Iterable[SentencePair]) -> list[tuple[SentencePair, tuple[Ids, Ids]]]:
        """Return every pair with the tokens of its sentences, raw text without BOS."""
        return self._each(rows, lambda row: (self._sentence(row.first), self._sentence(row.second)))

    def answers(
        self, rows: Iterable[TruthQuestion]
    ) -> list[tuple[TruthQuestion, list[Continuation]]]:
        """Return every question with its answers, the true ones before the false ones."""
        return self._each(rows, self._answered)

    def notes(self) -> Iterator[str]:
        """Yield a line about rows that were left out or cut, where there are any."""
        if found := counted(self.left_out):
            yield f"{self.suite}: {found}"

    def _each(self, rows: Iterable[Any], encode: Callable[[Any], Any]) -> list[tuple[Any, Any]]:
        """Return (row, encode(row)) of all rows that can be encoded; UserError where none can."""
        found = []
        for row in rows:
            try:
                found.append((row, encode(row)))
            except RowError as error:
                self.left_out[error.reason] += 1
        if not found:
            raise UserError(
                f"{SECTION}.{self.suite}: no row can be asked: {counted(self.left_out)}; raise "
                "data.max_prompt_tokens or data.max_response_tokens, or name another file"
            )
        return found

    def _prompt(self, messages: tuple[Message, ...], origin: Origin) -> EncodedPrompt:
        """Return a prompt through the chat template, as everything is asked."""
        context = self.context
        found = encode_prompt(context.renderer, Prompt(messages, origin), context.cfg.data)
        self.left_out.update(found.notes)
        return found

    def _sentence(self, text: str) -> Ids:
        renderer, data = self.context.renderer, self.context.cfg.data
        ids = renderer.prompt_ids((Message("text", text),))[len(renderer.bos_ids) :]
        if len(ids) >= data.max_prompt_tokens + data.max_response_tokens:
            raise Filtered("a sentence longer than a prompt and a response together")
        return tuple(ids)

    def _answered(self, row: TruthQuestion) -> list[Continuation]:
        renderer, limit = self.context.renderer, self.context.cfg.data.max_response_tokens
        prompt = self._prompt((Message("user", row.question),), row.origin)
        answers = [renderer.response_ids(text) for text in (*row.true, *row.false)]
        if any(len(ids) > limit for ids in answers):
            raise Filtered("an answer longer than data.max_response_tokens")
        return [Continuation(prompt_ids=prompt.ids, ids=ids) for ids in answers]
