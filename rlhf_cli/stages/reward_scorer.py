"""The frozen reward models as later stages use them: scores of token rows, or of their texts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from rlhf_cli.artifacts.store import member_folders
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.positions import require_positions
from rlhf_cli.config.schema import LongText, Reward
from rlhf_cli.core.ensembles import combined_scores
from rlhf_cli.data.collate import pad_right
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.data.fit import fit_prompt
from rlhf_cli.data.records import DataError, Filtered, RowError
from rlhf_cli.data.templates import Renderer, build
from rlhf_cli.evaluation.respond import Answer, reward_scores
from rlhf_cli.models.export import set_pad
from rlhf_cli.models.forward import ModelInputs, response_scores, sequence_scores
from rlhf_cli.models.load import load_tokenizer
from rlhf_cli.models.reward_head import HEAD, check_head, draw_head
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.stages.context import StageContext, room_of

SCORE_LIMIT = "rm/score_p999"  # metric of a reward model: 99.9 % of people's responses score below


def reset_head(engine: Engine, *, seed: int) -> None:
    """Draw a new scalar head, wherever its weights are."""
    engine.put(HEAD, draw_head(engine.get(HEAD).shape, seed=seed))


@dataclass(slots=True, kw_only=True)
class Translation:
    """The policy's texts in the tokens of a reward model that has others, within its own context.

    prompts: its ids of a prompt by the policy's . num_cut: prompts cut to leave room for a response .
    room: positions of the reward model, or None for any number . unknown: ids it has no row for,
    those of tokens that had to be added to its tokenizer.
    """

    ours: Renderer
    theirs: Renderer
    prompts: dict[tuple[int, ...], list[int]]
    num_cut: int
    room: int | None
    unknown: frozenset[int]

    @classmethod
    def of(
        cls,
        context: StageContext,
        theirs: Renderer,
        prompts: Iterable[EncodedPrompt],
        room: int | None,
    ) -> "Translation":
        """Fit the policy's view of every prompt again; all responses are read after the same."""
        data, fitted, num_cut = context.cfg.data, {}, 0
        limit = None if room is None else room - data.max_response_tokens
        for prompt in prompts:
            messages = prompt.messages
            if limit is not None:
                wanted = replace(data, max_prompt_tokens=limit, long_prompts=LongText.truncate)
                messages, _, cut = fit_prompt(theirs, messages, wanted)
                num_cut += cut is not None
            fitted[tuple(prompt.ids)] = theirs.prompt_ids(messages)
        added = theirs.tokenizer.convert_tokens_to_ids(list(theirs.added_tokens))
        return cls(
            ours=context.renderer,
            theirs=theirs,
            prompts=fitted,
            num_cut=num_cut,
            room=room,
            unknown=frozenset(added),
        )

    @property
    def pad_id(self) -> int:
        """Return any token with a row in the embedding: pads are masked."""
        return 0 if self.theirs.pad_id in self.unknown else self.theirs.pad_id

    def row(self, prompt_ids: list[int], response_ids: list[int]) -> list[int]:
        """Return the same text in their tokens; the end token only where the response ended."""
        response = self._response(self.ours.decode_response(response_ids))
        ended = bool(response_ids) and response_ids[-1] in self.ours.end_ids
        ids = self.prompts[tuple(prompt_ids)] + (response if ended else response[:-1])
        return [token for token in ids if token not in self.unknown][: self.room]

    def _response(self, text: str) -> list[int]:
        """Encode a sample, which may have marks of a thought that their template has no place for."""
        try:
            return self.theirs.response_ids(text)
        except RowError:
            return self.theirs.encode_response(text)


@dataclass(slots=True, kw_only=True)
class RewardModel:
    """Scores the policy's responses, by one network or the members of an ensemble.

    combine: makes one score of a response from those of all, (M, B) -> (B,). translation: None when the
    policy's tokens are its own.
    """

    networks: tuple[Network, ...]
    context: StageContext
    translation: Translation | None
    combine: Callable[[Tensor], Tensor]

    @classmethod
    def load(
        cls, context: StageContext, folders: Sequence[Path], prompts: Iterable[EncodedPrompt]
    ) -> "RewardModel":
        """Load from model folders; the hash decides whether tokenizer and template are the policy's.

        prompts: those that will be scored, so that their text can be had again for another tokenizer.
        """
        models = [context.scalar_model(folder) for folder in folders]
        renderers = [_renderer(context, folder) for folder in folders]
        own, first, translation = renderers[0], folders[0], None
        for folder, other in zip(folders, renderers, strict=True):
            if other.hash != own.hash:
                raise UserError(
                    f"the reward models {first} and {folder} have different tokenizers or chat templates, "
                    "and cannot score together: name one of them as parents.rm, or others that share them"
                )
        room = min(filter(None, (room_of(model.config) for model in models)), default=None)
        if own.hash != context.renderer.hash:
            translation = _translation(context, own, prompts, room, first)
        else:
            require_positions(room, context.cfg.data, who="the reward model")
        for model in models:
            check_head(model)
            if translation is not None:
                set_pad(model.config, translation.pad_id)
        return cls(
            networks=tuple(context.network(model) for model in models),
            context=context,
            translation=translation,
            combine=combining(context.cfg.reward),
        )

    @property
    def scores(self) -> tuple[Callable[[ModelInputs], Tensor], ...]:
        """Return the functions by which the members score a microbatch of a rollout."""
        return tuple(partial(self.score, network) for network in self.networks)

    @property
    def renderer(self) -> Renderer | None:
        """Return the reward model's own, where the policy's tokens are not its own."""
        return self.translation and self.translation.theirs

    def notes(self) -> list[str]:
        """Return cautions about the scores."""
        if self.translation is None:
            return []
        num_cut, num = self.translation.num_cut, len(self.translation.prompts)
        cut = [
            f"{num_cut} of {num} prompts are cut once more, to its {self.translation.room} positions"
        ]
        return [
            "the reward model has another tokenizer or chat template than the policy: "
            "prompts and responses are decoded and tokenised again for it",
            *(cut if num_cut else []),
        ]

    @torch.no_grad()
    def score(self, network: Network, inputs: ModelInputs) -> Tensor:
        """Return scores (B,) of the policy's prompts and responses, each read at the last real token."""
        if self.translation is None:
            return network(response_scores, inputs)
        batch = inputs.batch
        prompts, responses = (
            [row[mask].tolist() for row, mask in zip(rows, masks, strict=True)]
            for rows, masks in (
                (batch.prompts, batch.prompt_mask),
                (batch.responses, batch.response_mask),
            )
        )
        rows = [self.translation.row(p, r) for p, r in zip(prompts, responses, strict=True)]
        tokens, mask = pad_right(rows, self.translation.pad_id)
        place = self.context.device.torch
        return network(sequence_scores, tokens.to(place), mask.to(place))

    def score_answers(self, answers: list[Answer], *, counted: bool = True) -> Tensor:
        """Return scores (n,) of answers, on the CPU. counted: as a cost of what the stage makes."""
        if self.translation is None:
            rows, pad_id = [a.prompt_ids + a.ids for a in answers], self.context.renderer.pad_id
        else:
            rows = [self.translation.row(a.prompt_ids, a.ids) for a in answers]
            pad_id = self.translation.pad_id
        if counted:
            self.context.clock.scored(len(answers) * len(self.networks))
        with self.context.clock.phase("score"):
            found = [
                reward_scores(
                    network,
                    rows,
                    pad_id=pad_id,
                    batch=self.context.cfg.evaluation.batch,
                    world=self.context.world,
                )
                for network in self.networks
            ]
        return self.combine(torch.stack(found))


def reward_folders(inputs: Mapping[str, Path]) -> list[Path]:
    """Return the model folders of all reward models among the parents, members of ensembles included."""
    named = [folder for role, folder in inputs.items() if role.split("/")[0] == "rm"]
    return [model for folder in named for model in member_folders(folder)]


def open_judge(context: StageContext, path: str, prompts: Iterable[EncodedPrompt]) -> RewardModel:
    """Return the reward model of a folder or hub id, with all its members, that judges answers."""
    return RewardModel.load(context, member_folders(Path(path).expanduser()), prompts)


def combining(cfg: Reward) -> Callable[[Tensor], Tensor]:
    """Return how the scores of several reward models (M, B) become one (B,)."""
    return partial(combined_scores, combine=cfg.combine.name, penalty=cfg.penalty)


def _renderer(context: StageContext, folder: Path) -> Renderer:
    """Return the renderer of the reward model's own tokenizer and chat template."""
    data = context.cfg.data
    try:
        return build(
            load_tokenizer(context.cfg.model, str(folder)),
            template="auto",
            system=data.system,
            date=data.date,
            also_stop=tuple(context.renderer.end_ids),
        )
    except DataError as error:
        remedy = "give its tokenizer another chat template"
        raise UserError(f"the reward model {folder}: {error}; here: {remedy}") from error


def _translation(
    context: StageContext,
    own: Renderer,
    prompts: Iterable[EncodedPrompt],
    room: int | None,
    folder: Path,
) -> Translation:
    """Refuse a reward model whose context holds no prompt beside the longest response."""
    try:
        return Translation.of(context, own, prompts, room)
    except Filtered as error:
        raise UserError(
            f"the reward model {folder} has {room} positions, which do not hold a prompt beside "
            f"data.max_response_tokens={context.cfg.data.max_response_tokens} tokens: lower it, or "
            "take a reward model with a longer context"
        ) from error
