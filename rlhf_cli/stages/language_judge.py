"""The language model of the section `judge`: loaded here, or asked at a server."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from rlhf_cli.artifacts.store import model_folder
from rlhf_cli.config.environment import JUDGE_KEY
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.judges import LANGUAGE_MODEL
from rlhf_cli.config.schema.run import Config
from rlhf_cli.data.records import DataError, Message
from rlhf_cli.data.templates import Renderer, build
from rlhf_cli.evaluation.judge_server import JudgeServer, JudgeUnreachable
from rlhf_cli.evaluation.likelihood import Continuation, log_likelihoods
from rlhf_cli.evaluation.pairwise import LETTERS
from rlhf_cli.models.load import load_tokenizer
from rlhf_cli.runtime.engine import Network
from rlhf_cli.runtime.watchdog import with_heartbeat
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.context import StageContext, room_of


class LanguageJudge(Protocol):
    """Who answers questions by A or B."""

    def shares(self, questions: list[str]) -> Tensor:
        """Return the share of A of each question, (n,) float64, NaN where there is none; collective.

        JudgeUnreachable on every process where a server did not answer one of them.
        """
        ...


@dataclass(slots=True, kw_only=True)
class LoadedJudge:
    """chat: whether it is asked through its chat template. room: its positions, None for any number."""

    network: Network
    renderer: Renderer
    chat: bool
    room: int | None
    batch: int
    world: World

    def shares(self, questions: list[str]) -> Tensor:
        """Return P(A) / (P(A) + P(B)), NaN of a question that is longer than its positions."""
        role = "user" if self.chat else "text"
        prompts = [self.renderer.prompt_ids((Message(role, text),)) for text in questions]
        letters = [self._letter(letter) for letter in LETTERS]
        longest = max(map(len, letters))
        fits = [
            i
            for i, ids in enumerate(prompts)
            if self.room is None or len(ids) + longest <= self.room
        ]
        rows = [Continuation(prompt_ids=prompts[i], ids=ids) for i in fits for ids in letters]
        logprobs = log_likelihoods(
            self.network, rows, pad_id=self.renderer.pad_id, batch=self.batch, world=self.world
        ).view(-1, 2)
        found = torch.full((len(questions),), math.nan, dtype=torch.float64)
        found[fits] = torch.sigmoid(logprobs[:, 0] - logprobs[:, 1])
        return found

    def _letter(self, letter: str) -> list[int]:
        """Return the tokens of an answer, as the template begins it, without its end token."""
        encode = self.renderer.response_ids if self.chat else self.renderer.encode_response
        return encode(letter)[:-1]


@dataclass(slots=True, kw_only=True)
class AskedJudge:
    """A server; every process asks it a share of the questions."""

    server: JudgeServer
    world: World

    def shares(self, questions: list[str]) -> Tensor:
        """Return the share of A of each question."""
        found, reason = torch.zeros(len(questions), dtype=torch.float64), None
        mine = self.world.share.of(range(len(questions)))
        asked = self.server.shares([questions[i] for i in mine])
        try:
            for i, share in zip(mine, with_heartbeat(asked, "asking the judge"), strict=True):
                found[i] = share
        except JudgeUnreachable as error:
            reason = str(error)
        if self.world.any(reason is not None):
            raise JudgeUnreachable(reason or "another process got no answer")
        return self.world.all_reduce(found)


def open_language_judge(context: StageContext) -> LanguageJudge | None:
    """Return the judge of the section `judge`; None where it names no model."""
    cfg, settings = context.cfg, context.cfg.judge
    if settings.model is None:
        return None
    if settings.url is not None:
        return AskedJudge(server=server_of(cfg), world=context.world)
    folder = model_folder(Path(settings.model).expanduser())
    network = context.judging_lm(folder)
    return LoadedJudge(
        network=network,
        renderer=_renderer(cfg, folder),
        chat=settings.chat,
        room=room_of(network.model.config),
        batch=cfg.evaluation.batch,
        world=context.world,
    )


def _renderer(cfg: Config, folder: Path) -> Renderer:
    """Return the renderer of the judge's own tokenizer and chat template."""
    tokenizer = load_tokenizer(cfg.model, str(folder))
    try:
        return build(tokenizer, template="auto", system=None, date=cfg.data.date, also_stop=())
    except DataError as error:
        raise UserError(f"{LANGUAGE_MODEL}={cfg.judge.model}: {error}") from error


def server_of(cfg: Config) -> JudgeServer:
    """Return the server of judge.url, with the key of the environment."""
    settings = cfg.judge
    assert settings.model is not None and settings.url is not None
    return JudgeServer(
        url=settings.url,
        model=settings.model,
        parallel=settings.parallel,
        key=os.environ.get(JUDGE_KEY),
    )
