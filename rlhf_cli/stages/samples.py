"""Answers and rendered examples as a person reads them; the same prompts before and after training."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from rich.text import Text
from torch import Tensor

from rlhf_cli.config.printable import printable
from rlhf_cli.data.encode import (
    EncodedComparison,
    EncodedDemonstration,
    EncodedPrompt,
    encode_prompt,
    last_answer,
)
from rlhf_cli.data.records import Message, Prompt
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.evaluation.respond import Answer, kl_to_reference, respond
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.context import StageContext
from rlhf_cli.telemetry.console import console
from rlhf_cli.telemetry.recorder import Recorder

MAX_SHOWN_CHARS = 300  # characters of a prompt that are shown
# Styles of the tokens of an example: those to learn, and all others.
SUPERVISED = "bold green"
CONTEXT = "dim"


def prompts_of(
    context: StageContext,
    demonstrations: Iterable[EncodedDemonstration],
    *,
    most: int | None = None,
) -> list[EncodedPrompt]:
    """Return the prompts of the first `most` demonstrations that have one; raw texts have none.

    A prompt is what comes before the last assistant turn.
    """
    found = (_prompt_of(context, one) for one in demonstrations)
    return list(islice(filter(None, found), most))


def _prompt_of(context: StageContext, one: EncodedDemonstration) -> EncodedPrompt | None:
    messages = one.record.messages
    last = last_answer(messages)
    if not last:
        return None
    prompt = Prompt(messages[:last], one.record.origin, one.record.meta)
    return encode_prompt(context.renderer, prompt, context.cfg.data)


def compared_prompts(comparisons: Iterable[EncodedComparison]) -> list[EncodedPrompt]:
    """Return the prompts of comparisons."""
    return [
        EncodedPrompt(
            ids=one.prompt_ids,
            messages=one.record.prompt,
            record=Prompt(one.record.prompt, one.record.origin, one.record.meta),
        )
        for one in comparisons
    ]


def sample_answers(
    context: StageContext, network: Network, prompts: list[EncodedPrompt], seed: int
) -> list[Answer]:
    """Sample one answer per prompt."""
    return sample_each(context, network, prompts, [seed])[0]


def sample_each(
    context: StageContext, network: Network, prompts: list[EncodedPrompt], seeds: list[int]
) -> list[list[Answer]]:
    """Sample one answer per prompt for each seed, to be looked at or evaluated."""
    ids, batch = [prompt.ids for prompt in prompts], context.cfg.evaluation.batch
    found = _respond(context, network, ids, temperature=1.0, batch=batch, seeds=seeds)
    context.clock.count(generated=num_tokens(found))
    return found


def sample_to_use(
    context: StageContext,
    network: Network,
    prompts: list[list[int]],
    *,
    temperature: float,
    batch: int,
    seeds: list[int],
) -> list[list[Answer]]:
    """Sample one answer per prompt (token ids) for each seed, as the cost of what the stage makes."""
    found = _respond(context, network, prompts, temperature=temperature, batch=batch, seeds=seeds)
    context.clock.sampled(responses=len(prompts) * len(seeds), tokens=num_tokens(found))
    return found


def _respond(
    context: StageContext,
    network: Network,
    prompts: list[list[int]],
    *,
    temperature: float,
    batch: int,
    seeds: list[int],
) -> list[list[Answer]]:
    params = context.sampling_params(temperature=temperature)
    with context.clock.phase("generate"):
        return respond(
            network, prompts, context.renderer, params, context.world, batch=batch, seeds=seeds
        )


def log_ratios(
    context: StageContext, policy: Network, reference: Network, answers: list[Answer]
) -> Tensor:
    """Return log policy - log reference of each answer, (n,), on the CPU."""
    return kl_to_reference(
        policy,
        reference,
        answers,
        pad_id=context.renderer.pad_id,
        batch=context.cfg.evaluation.batch,
        world=context.world,
    )


def num_tokens(tries: list[list[Answer]]) -> int:
    """Return how many tokens these answers have together."""
    return sum(len(one.ids) for answers in tries for one in answers)


@dataclass(slots=True, kw_only=True)
class BeforeAfter:
    """A model's answers to a few prompts before and after the training. texts: those sampled so far."""

    context: StageContext
    prompts: list[EncodedPrompt]
    texts: dict[str, list[str]] = field(default_factory=dict)

    def sample(self, when: str, network: Network) -> None:
        """Answer the prompts; when: "before" or "after" the training."""
        answers = sample_answers(self.context, network, self.prompts, self.context.cfg.seed)
        self.texts[when] = [response_text(answer) for answer in answers]

    def show(self, recorder: Recorder) -> None:
        """Show both answers to every prompt."""
        rows = [
            {"prompt": last_turn(prompt.record.messages), "before": before, "after": after}
            for prompt, before, after in zip(
                self.prompts, self.texts["before"], self.texts["after"], strict=True
            )
        ]
        recorder.samples("before and after", rows)


def response_text(answer: Answer) -> str:
    """Return the text, with a mark where the response has no EOS."""
    return answer.text if answer.finished else f"{answer.text} [cut]"


def conversation_text(messages: tuple[Message, ...]) -> str:
    """Return the conversation as text: one turn as it is, several with their roles."""
    if len(messages) == 1:
        return messages[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def last_turn(messages: tuple[Message, ...]) -> str:
    """Return the end of the conversation, which the response answers."""
    text = conversation_text(messages)
    return text if len(text) <= MAX_SHOWN_CHARS else f"... {text[-MAX_SHOWN_CHARS:]}"


def example(renderer: Renderer, ids: list[int], supervised: list[bool]) -> Text:
    """Return a rendered example, its supervised tokens in colour, or between [[ and ]] without colours."""
    if console().is_terminal:
        return rendered(renderer, ids, supervised)
    return Text(plain(renderer, ids, supervised))


def runs(renderer: Renderer, ids: list[int], loss_mask: list[bool]) -> list[tuple[str, bool]]:
    """Return (text, supervised) of each stretch of tokens with the same mask.

    Special tokens are shown, control characters as their escapes.
    """
    stretches: list[tuple[list[int], bool]] = []
    for token, supervised in zip(ids, loss_mask, strict=True):
        if not stretches or stretches[-1][1] != supervised:
            stretches.append(([], supervised))
        stretches[-1][0].append(token)
    return [(_decode(renderer, part), supervised) for part, supervised in stretches]


def _decode(renderer: Renderer, ids: list[int]) -> str:
    text = renderer.tokenizer.decode(
        ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return printable(text)


def rendered(renderer: Renderer, ids: list[int], loss_mask: list[bool]) -> Text:
    """Return the example as rich Text: supervised tokens bold green, all others dim."""
    text = Text()
    for part, supervised in runs(renderer, ids, loss_mask):
        text.append(part, SUPERVISED if supervised else CONTEXT)
    return text


def plain(renderer: Renderer, ids: list[int], loss_mask: list[bool]) -> str:
    """Return the example without colour: supervised stretches stand between [[ and ]]."""
    return "".join(
        f"[[{part}]]" if supervised else part for part, supervised in runs(renderer, ids, loss_mask)
    )
