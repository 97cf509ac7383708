"""Log-probs of the comparisons' responses under the reference: computed once, kept beside the data.

They depend on neither beta nor the loss, so a sweep over these reads them from <runs_dir>/.cache/reference.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rlhf_cli.artifacts.fingerprint import model_hash
from rlhf_cli.artifacts.layout import BESIDE
from rlhf_cli.artifacts.store import FREE, write_errors
from rlhf_cli.config.schema.run import Config
from rlhf_cli.core.batches import PreferenceBatch
from rlhf_cli.data.collate import preference_batch
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.evaluation.respond import group_by_length
from rlhf_cli.models.forward import response_sums
from rlhf_cli.runtime.engine import Network
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.reading import CACHE
from rlhf_cli.stages.saving import write_tensors
from rlhf_cli.telemetry.console import line

PROMPTS = 16  # per forward pass, with all their responses
SUMS = "sums"  # name of the tensor in a file


def reference_logprobs(
    context: StageContext, sft: Path, *sides: Sequence[EncodedComparison]
) -> list[Tensor]:
    """Return for each side the summed log-prob of every response, in order, (n,) on the CPU.

    Taken from the cache; a file that is damaged, or not there, is made by loading the reference.
    """
    files = [cache_file(context, sft, side) for side in sides]
    kept = [
        _from_cache(context, file, offsets(side)[-1])
        for file, side in zip(files, sides, strict=True)
    ]
    if all(one is not None for one in kept):
        return kept
    network = context.network(context.causal_lm(sft))
    with context.status("reading the comparisons with the reference"), context.clock.phase("score"):
        found = [
            response_logprobs(context, network, side) if one is None else one
            for side, one in zip(sides, kept, strict=True)
        ]
    if context.world.is_main:
        for file, sums in zip(files, found, strict=True):
            keep(file, sums)
    return found


def keep(file: Path, sums: Tensor) -> None:
    """Write the file, which is complete once it has its name."""
    with write_errors(file, FREE):
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}{BESIDE}")
        write_tensors(beside, {SUMS: sums})
        beside.replace(file)


def _from_cache(context: StageContext, file: Path, num: int) -> Tensor | None:
    """Return what the main process finds in the file, on every process."""
    kept = _kept(file, num) if context.world.is_main else None
    if not context.world.any(kept is not None):
        return None
    return context.world.all_reduce(torch.zeros(num) if kept is None else kept)


def response_logprobs(
    context: StageContext, network: Network, comparisons: Sequence[EncodedComparison]
) -> Tensor:
    """Return the summed log-prob of every response of every comparison under a network, (n,)."""
    starts = offsets(comparisons)
    found = torch.zeros(starts[-1])
    sizes = [range(sum(map(len, one.sequences()))) for one in comparisons]
    for index, counts in context.world.share.padded_shard(group_by_length(sizes, PROMPTS)):
        heartbeat("reading comparisons")
        batch = preference_batch([comparisons[i] for i in index], context.renderer.pad_id)
        with torch.no_grad():
            sums = network(response_sums, batch.to(context.device.torch)).float().cpu()
        if counts:
            found[rows_of(batch, index, starts)] = sums
    return context.world.all_reduce(found)


def offsets(comparisons: Sequence[EncodedComparison]) -> list[int]:
    """Return the number of responses before each comparison, and that of all."""
    starts = [0]
    for one in comparisons:
        starts.append(starts[-1] + len(one.response_ids))
    return starts


def rows_of(batch: PreferenceBatch, index: Sequence[int], starts: Sequence[int]) -> Tensor:
    """Return the place of each row of the batch among all responses. index: its comparisons. -> (N,)"""
    prompt = batch.prompt_of.cpu()
    first = torch.tensor([starts[i] for i in index])[prompt]
    sizes = prompt.bincount(minlength=len(index))
    return first + torch.arange(len(prompt)) - (sizes.cumsum(0) - sizes)[prompt]


def cache_file(context: StageContext, sft: Path, comparisons: Sequence[EncodedComparison]) -> Path:
    """Return the file of these log-probs; its name covers all that decides them."""
    cfg: Config = context.cfg
    digest = hashlib.sha256()
    parts = [
        model_hash(str(sft), None),
        context.renderer.hash,
        str(context.device.dtype),
        cfg.runtime.reference_implementation,
        str(cfg.model.attention),
    ]
    digest.update(json.dumps(parts).encode())
    for one in comparisons:
        digest.update(json.dumps([one.prompt_ids, one.response_ids]).encode())
    name = f"{digest.hexdigest()[:32]}.safetensors"
    return Path(cfg.runs_dir).expanduser() / CACHE / "reference" / name


def _kept(file: Path, num: int) -> Tensor | None:
    """Return what the file holds; None, with a warning, where it is damaged."""
    if not file.is_file():
        return None
    try:
        found = load_file(file)[SUMS]
        if found.shape == (num,) and torch.isfinite(found).all():
            return found
    except (OSError, SafetensorError, KeyError):
        pass
    line(f"  {file} is damaged: the log-probs of the reference are computed again", style="yellow")
    return None
