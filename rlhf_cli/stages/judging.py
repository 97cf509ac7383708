"""The frozen reward model as later stages use it: scores of token rows, or of their texts."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlhf_cli.data.collate import pad_right
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.data.records import Message
from rlhf_cli.data.templates import Renderer, build
from rlhf_cli.evaluation.respond import Answer, reward_scores
from rlhf_cli.models.loading import load_tokenizer
from rlhf_cli.models.reward import HEAD, check_head, fresh_head
from rlhf_cli.models.scoring import Reading, response_scores, sequence_scores
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.stages.setting import Setting


def renew_head(engine: Engine, *, seed: int) -> None:
    """A fresh scalar head, wherever its weights lie."""
    engine.put(HEAD, fresh_head(engine.get(HEAD).shape, seed=seed))


@dataclass(slots=True, kw_only=True)
class RewardModel:
    """renderer is None when the policy's tokens are the reward model's own.

    conversations: the messages behind each row of prompt ids, for a reward model that reads other tokens.
    """

    network: Network
    setting: Setting
    renderer: Renderer | None
    conversations: dict[tuple[int, ...], tuple[Message, ...]]

    @classmethod
    def load(cls, setting: Setting, folder: Path, prompts: list[EncodedPrompt]) -> "RewardModel":
        """From a model folder; whether its tokenizer and template are the policy's is found by their hash.

        prompts: those that will be scored, so that their text can be had again for another tokenizer.
        """
        cfg = setting.cfg
        model = setting.scalar_model(folder)
        check_head(model)
        tokenizer = load_tokenizer(cfg.model, str(folder))
        own = build(
            tokenizer,
            template="auto",
            system=cfg.data.system,
            also_stop=tuple(setting.renderer.end_ids),
        )
        same = own.hash == setting.renderer.hash
        if not same:
            model.config.pad_token_id = own.pad_id
        texts = {} if same else {tuple(p.ids): p.record.messages for p in prompts}
        return cls(
            network=setting.network(model),
            setting=setting,
            renderer=None if same else own,
            conversations=texts,
        )

    def notes(self) -> list[str]:
        """What a person should know before trusting the scores."""
        if self.renderer is None:
            return []
        return [
            "the reward model has another tokenizer or chat template than the policy: "
            "prompts and responses are decoded and tokenised again for it"
        ]

    @torch.no_grad()
    def score(self, reading: Reading) -> Tensor:
        """Scores (B,) of the policy's prompts and responses, each read at the last real token."""
        if self.renderer is None:
            return self.network(response_scores, reading)
        batch = reading.batch
        prompts, responses = (
            [row[mask].tolist() for row, mask in zip(rows, masks, strict=True)]
            for rows, masks in (
                (batch.prompts, batch.prompt_mask),
                (batch.responses, batch.response_mask),
            )
        )
        rows = [self._translate(p, r) for p, r in zip(prompts, responses, strict=True)]
        tokens, mask = pad_right(rows, self.renderer.pad_id)
        place = self.setting.device.torch
        return self.network(sequence_scores, tokens.to(place), mask.to(place))

    def score_answers(self, answers: list[Answer]) -> Tensor:
        """Scores (n,) of answers, on the CPU."""
        if self.renderer is None:
            rows, pad_id = [a.prompt_ids + a.ids for a in answers], self.setting.renderer.pad_id
        else:
            rows = [self._translate(a.prompt_ids, a.ids) for a in answers]
            pad_id = self.renderer.pad_id
        with self.setting.clock.part("score"):
            return reward_scores(
                self.network,
                rows,
                pad_id=pad_id,
                batch=self.setting.cfg.evaluation.batch,
                world=self.setting.world,
            )

    def _translate(self, prompt_ids: list[int], response_ids: list[int]) -> list[int]:
        """The same text in the reward model's tokens; its end token only where the response ended."""
        ours, theirs = self.setting.renderer, self.renderer
        prompt = theirs.prompt_ids(self.conversations[tuple(prompt_ids)])
        response = theirs.response_ids(ours.decode_response(response_ids))
        ended = bool(response_ids) and response_ids[-1] in ours.end_ids
        return prompt + (response if ended else response[:-1])
