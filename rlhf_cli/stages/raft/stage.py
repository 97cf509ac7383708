"""RAFT, its control that keeps at random, and SFT on preferred responses: they differ in their sections.

Reading order: `run` here, then `fit` in rounds.py.
"""

from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.artifacts.layout import MODEL
from rlhf_cli.config.schema import RAFT
from rlhf_cli.config.schema.run import Config
from rlhf_cli.stages.context import open_context, parent_model
from rlhf_cli.stages.dry_run import Preview
from rlhf_cli.stages.raft.rounds import (
    Models,
    RaftState,
    Rounds,
    fit,
    most_steps,
    num_rounds,
    samples,
    top_ranked,
)
from rlhf_cli.stages.reward_scorer import RewardModel, reward_folders
from rlhf_cli.stages.samples import BeforeAfter, compared_prompts, example
from rlhf_cli.stages.stage_run import open_run


@dataclass(frozen=True, slots=True)
class RaftStage:
    """The stage of one section."""

    name: str

    def section(self, cfg: Config) -> RAFT:
        return getattr(cfg, self.name)

    def run(self, cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
        """Run all rounds; write model/."""
        own, sft = self.section(cfg), parent_model(inputs, "sft")
        context = open_context(cfg, sft)
        context.require_whole_shares({f"{self.name}.batch.size": own.batch.size})
        data = context.encoded("prompts" if samples(own) else "comparisons")
        models = Models(policy=context.engine(context.causal_lm(sft), own.optim))
        if samples(own):
            models.reward = RewardModel.load(context, reward_folders(inputs), data.train)
            models.reference = context.network(context.causal_lm(sft))
        shown = data.held_out[: cfg.samples]
        before_after = BeforeAfter(
            context=context, prompts=shown if samples(own) else compared_prompts(shown)
        )
        with open_run(
            context,
            out,
            stage=self.name,
            engines={"policy": models.policy},
            total_steps=most_steps(own, data),
            samples=before_after,
        ) as stage_run:
            recorder, state = stage_run.recorder, RaftState()
            if stage_run.resumed:
                state.load_state_dict(stage_run.resumed.state)
            else:
                data.print_report(recorder)
                for note in models.reward.notes() if models.reward else ():
                    recorder.note(note)
                context.print_notes(recorder, models.policy)
                before_after.sample("before", models.policy)
            rounds = Rounds(context=context, stage=self.name, own=own, models=models, data=data)
            metrics = fit(rounds, state, recorder, stage_run.saver)
            before_after.sample("after", models.policy)
            before_after.show(recorder)
            context.export(models.policy, out / MODEL)
        return metrics

    def preview(self, cfg: Config, inputs: dict[str, Path]) -> Preview:
        """Return what a dry run shows: counts, rounds, steps, and one prompt."""
        own, context = self.section(cfg), open_context(cfg)
        data = context.encoded("prompts" if samples(own) else "comparisons")
        first = data.train[0]
        ids = first.ids if samples(own) else first.prompt_ids
        rounds = (
            f"{num_rounds(own)} of {own.prompts} prompts, {own.samples} responses each"
            if samples(own)
            else f"one, of {len(top_ranked(data.train))} preferred responses"
        )
        return Preview(
            facts={"rounds": rounds, "optimizer steps": f"{most_steps(own, data)} at most"},
            example=example(context.renderer, ids, [False] * len(ids)),
            notes=data.report.plain().splitlines(),
        )


raft = RaftStage("raft")
raft_random = RaftStage("raft_random")
sft_chosen = RaftStage("sft_chosen")
