"""Problems with a known solution: one prompt, a few one-token responses.

The networks are real Llama classes of a few hundred parameters; only their size is unusual.
"""

import itertools

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from rlhf_cli.config.schema import (
    KL,
    PPO,
    PTX,
    Alerts,
    Average,
    Baseline,
    Gather,
    Graphs,
    KLController,
    KLEstimator,
    KLPenalty,
    KLPlace,
    KLStop,
    MissingEOS,
    MissingEOSMode,
    OldLogprobs,
    Optim,
    PolicyGradient,
    Ratio,
    RolloutBatch,
    Runtime,
    Scale,
    Schedule,
    ScheduleKind,
    ValueInit,
    Watch,
    WatchBy,
)
from rlhf_cli.core.batches import PromptBatch
from rlhf_cli.models.generation.sampling import SamplingParams
from rlhf_cli.models.load import freeze
from rlhf_cli.runtime.device import pick_device
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.ppo.loop import compute_advantages
from rlhf_cli.stages.ppo.models import PPOModels
from rlhf_cli.stages.rollout.models import RolloutModels

OFF = Alerts(eos_rate=None, length=None, entropy=None, kl=None, score_std=None, score_rms=None)
UNWATCHED = Watch(every=None, prompts=2, by=WatchBy.auto, kl_budget=None)

PROMPT = 0


def runtime(**changes) -> Runtime:
    values = {
        "device": "cpu",
        "dtype": "float32",
        "num_threads": None,
        "num_processes": None,
        "gather": Gather.auto,
        "offload": False,
        "cuda_graphs": Graphs.never,
        "timeout": 600.0,
        "reference_implementation": False,
        "compile": False,
        "deepspeed": None,
    }
    return Runtime(**(values | changes))


CPU = pick_device(runtime())


def network(model) -> Network:
    """Return a frozen network in this one process."""
    return Network(freeze(model), device=CPU)


def engine(model, optim: Optim, **options) -> Engine:
    """Return an engine in this one process."""
    return Engine(model, optim=optim, device=CPU, world=World(), **options)


class Silent:
    """A recorder that keeps its input."""

    def __init__(self):
        self.rows, self.warnings = [], []

    def log(self, metrics, step):
        self.rows.append(metrics)

    def note(self, text):
        """Ignore a note."""

    def warn(self, text):
        self.warnings.append(text)


def optim(lr):
    return Optim(lr=lr, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.0, grad_clip=1.0)


def ppo(**changes) -> PPO:
    values = {
        "total_episodes": 4096,
        "batch": RolloutBatch(rollout=256, minibatch=256, microbatch=256, max_tokens=None),
        "inner_epochs": 4,
        "temperature": 1.0,
        "old_logprobs": OldLogprobs.auto,
        "kl": KL(coef=0.5, controller=KLController.fixed, target=6.0, horizon=10000),
        "missing_eos": MissingEOS(mode=MissingEOSMode.none, value=0.0),
        "gamma": 1.0,
        "gae_lambda": 1.0,
        "clip_eps": 0.2,
        "value_clip_eps": 0.2,
        "vf_coef": 0.5,
        "whiten_rewards": False,
        "whiten_advantages": False,
        "value_init": ValueInit.rm,
        "optim": optim(0.02),
        "value_optim": optim(0.02),
        "schedule": Schedule(kind=ScheduleKind.linear, warmup=0.0, final=0.0),
        "ema_decay": None,
        "ptx": PTX(coef=0.0, ratio=8),
        "max_steps": None,
        "kl_stop": KLStop(iteration=None, run=None),
        "alerts": OFF,
        "watch": UNWATCHED,
    }
    return PPO(**(values | changes))


def policy_gradient(**changes) -> PolicyGradient:
    values = {
        "total_episodes": 4096,
        "max_steps": None,
        "batch": RolloutBatch(rollout=256, minibatch=256, microbatch=256, max_tokens=None),
        "group": 4,
        "baseline": Baseline.leave_one_out,
        "scale": Scale.none,
        "ratio": Ratio.token,
        "average": Average.sum,
        "inner_epochs": 4,
        "temperature": 1.0,
        "old_logprobs": OldLogprobs.auto,
        "kl": kl_penalty(),
        "missing_eos": MissingEOS(mode=MissingEOSMode.none, value=0.0),
        "clip_eps": 0.2,
        "clip_eps_high": None,
        "skip_uniform": False,
        "max_extra": 2,
        "drop_unfinished": False,
        "optim": optim(0.02),
        "schedule": Schedule(kind=ScheduleKind.linear, warmup=0.0, final=0.0),
        "ema_decay": None,
        "kl_stop": KLStop(iteration=None, run=None),
        "alerts": OFF,
        "watch": UNWATCHED,
    }
    return PolicyGradient(**(values | changes))


def kl_penalty(**changes) -> KLPenalty:
    values = {
        "coef": 0.5,
        "place": KLPlace.reward,
        "estimator": KLEstimator.k1,
        "weighted": False,
    }
    return KLPenalty(**(values | changes))


def _config(num_arms: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=num_arms,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        tie_word_embeddings=False,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        num_labels=1,
    )


def policy_network(probs: torch.Tensor) -> LlamaForCausalLM:
    """Return a network whose first response token follows `probs` after PROMPT."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(_config(len(probs)))
    with torch.no_grad():
        hidden = model.model(torch.tensor([[PROMPT]])).last_hidden_state[0, 0]
        model.lm_head.weight.copy_(torch.outer(probs.log(), hidden / hidden.square().sum()))
    return model


def arm_probs(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[PROMPT]])).logits[0, -1].softmax(-1)


def models(ref: torch.Tensor, rewards: torch.Tensor, cfg: PPO) -> PPOModels:
    """Return the models of a bandit, where response `arm` scores rewards[arm]."""
    torch.manual_seed(1)
    value = LlamaForSequenceClassification(_config(len(ref)))
    return PPOModels(
        policy=engine(policy_network(ref), cfg.optim),
        value_model=engine(value, cfg.value_optim),
        ref_policy=network(policy_network(ref)),
        scores=(lambda inputs: rewards[inputs.batch.responses[:, 0]],),
        device=CPU,
    )


def gradient_models(ref: torch.Tensor, rewards: torch.Tensor, cfg: PolicyGradient) -> RolloutModels:
    """Return the models of a bandit for a method without a value model."""
    return RolloutModels(
        policy=engine(policy_network(ref), cfg.optim),
        ref_policy=network(policy_network(ref)) if cfg.has_reference else None,
        scores=(lambda inputs: rewards[inputs.batch.responses[:, 0]],),
        device=CPU,
    )


def prompts(batch: int):
    tokens = torch.full((batch, 1), PROMPT)
    one = PromptBatch(tokens=tokens, mask=torch.ones_like(tokens).bool(), index=[0] * batch)
    return itertools.repeat(one)


PARAMS = SamplingParams(max_new_tokens=1, temperature=1.0, end_ids=[], pad_id=0)


def optimum(ref: torch.Tensor, rewards: torch.Tensor, beta: float) -> torch.Tensor:
    """Return pi_ref * exp(r / beta) / Z."""
    return torch.softmax(ref.log() + rewards / beta, 0)


def advantages_of(rollout, kl_coef: float, cfg: PPO) -> tuple[torch.Tensor, torch.Tensor]:
    """Return advantages and returns (B, R) of a rollout."""
    found = compute_advantages(rollout, kl_coef, cfg)
    return found.advantages, found.returns
