"""What a person reads of a model at work: the same prompts answered before and after."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from rich.text import Text

from rlhf_cli.data.encode import (
    EncodedDemonstration,
    EncodedPrompt,
    encode_prompt,
    last_answer,
)
from rlhf_cli.data.records import Message, Prompt
from rlhf_cli.data.show import plain, rendered
from rlhf_cli.data.templates import Renderer
from rlhf_cli.evaluation.respond import Answer, respond
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.setting import Setting
from rlhf_cli.telemetry.console import console
from rlhf_cli.telemetry.recorder import Recorder

EYEFUL = 300  # characters of a prompt that are shown


def prompts_of(
    setting: Setting, demonstrations: Iterable[EncodedDemonstration], *, most: int | None = None
) -> list[EncodedPrompt]:
    """What came before the last assistant turn of each demonstration, of the first `most` that have a
    prompt; raw texts have none."""
    found = (_prompt_of(setting, one) for one in demonstrations)
    return list(islice(filter(None, found), most))


def _prompt_of(setting: Setting, one: EncodedDemonstration) -> EncodedPrompt | None:
    messages = one.record.messages
    last = last_answer(messages)
    if not last:
        return None
    prompt = Prompt(messages[:last], one.record.origin, one.record.meta)
    return encode_prompt(setting.renderer, prompt, setting.cfg.data)


def ask(
    setting: Setting, network: Network, prompts: list[EncodedPrompt], seed: int
) -> list[Answer]:
    """One sampled answer a prompt."""
    return ask_each(setting, network, prompts, [seed])[0]


def ask_each(
    setting: Setting, network: Network, prompts: list[EncodedPrompt], seeds: list[int]
) -> list[list[Answer]]:
    """For each seed one sampled answer a prompt."""
    cfg, ids = setting.cfg, [prompt.ids for prompt in prompts]
    with setting.clock.part("generate"):
        found = respond(
            network,
            ids,
            setting.renderer,
            setting.sampling_params(temperature=1.0),
            setting.world,
            batch=cfg.evaluation.batch,
            seeds=seeds,
        )
    setting.clock.count(generated=sum(len(one.ids) for answers in found for one in answers))
    return found


@dataclass(slots=True, kw_only=True)
class BeforeAfter:
    """How a model's answers to a few prompts changed; `texts` is what is known so far."""

    setting: Setting
    prompts: list[EncodedPrompt]
    texts: dict[str, list[str]] = field(default_factory=dict)

    def ask_before(self, network: Network) -> None:
        self._ask("before", network)

    def ask_after(self, network: Network) -> None:
        self._ask("after", network)

    def _ask(self, when: str, network: Network) -> None:
        answers = ask(self.setting, network, self.prompts, self.setting.cfg.seed)
        self.texts[when] = [told(answer) for answer in answers]

    def tell(self, recorder: Recorder) -> None:
        """Show them, as soon as both are known."""
        rows = [
            {"prompt": said(prompt.record.messages), "before": before, "after": after}
            for prompt, before, after in zip(
                self.prompts, self.texts["before"], self.texts["after"], strict=True
            )
        ]
        recorder.samples("before and after", rows)

    def state(self) -> dict[str, list[str]]:
        return dict(self.texts)


def told(answer: Answer) -> str:
    """The text, and a mark where the response was cut instead of ending by itself."""
    return answer.text if answer.finished else f"{answer.text} [cut]"


def written(messages: tuple[Message, ...]) -> str:
    """The conversation as text: one turn as it is, several with their roles."""
    if len(messages) == 1:
        return messages[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def said(messages: tuple[Message, ...]) -> str:
    """The end of the conversation, which is what the answer is to."""
    text = written(messages)
    return text if len(text) <= EYEFUL else f"... {text[-EYEFUL:]}"


def example(renderer: Renderer, ids: list[int], supervised: list[bool]) -> Text:
    """A rendered example with its supervised tokens coloured, or between [[ and ]] without colours."""
    if console().is_terminal:
        return rendered(renderer, ids, supervised)
    return Text(plain(renderer, ids, supervised))
