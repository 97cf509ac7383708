"""Export of a model folder that plain transformers loads: weights, config, tokenizer, template.

Weights come one tensor at a time, so that no process holds a complete sharded model: at most the tensors
of one file are in memory.
"""

import json
import os
import shutil
from collections.abc import Container, Iterable, Iterator
from itertools import chain
from pathlib import Path
from stat import S_IMODE

from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.core_model_loading import revert_weight_conversion

from rlhf_cli.config.errors import UserError
from rlhf_cli.core.finite import not_finite

FILE_BYTES = 5 * 10**9  # largest file of weights, one larger tensor aside
Weights = Iterable[tuple[str, Tensor | None]]


def export(
    model: PreTrainedModel,
    weights: Weights,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    end_ids: list[int],
    pad_id: int,
) -> None:
    """Write a model folder under a temporary name, then rename it.

    Every process calls this, because gathering weights is collective; the one that gets tensors writes.
    The pad id goes into the config: sequence classifiers find the last real token by it. Weights that are
    not finite are refused, and an older folder stays; buffers may hold infinite bounds (Gemma 4).
    """
    beside = folder.with_name(f".{folder.name}.tmp")
    # A tied weight is saved under the name that save_pretrained uses: the body's, not the head's.
    tied = getattr(model, "all_tied_weights_keys", {})
    buffers = {name for name, _ in model.named_buffers()}
    chunks = _chunks(((tied.get(name, name), weight) for name, weight in weights), buffers)
    first = next(chunks, None)
    if first is None:
        return
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    _write_weights(model, chain([first], chunks), beside)
    _set_config(model, first, pad_id)
    model.config.save_pretrained(beside)
    if model.can_generate():
        _generation(model, end_ids, pad_id).save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    _put(beside, folder)


def _chunks(weights: Weights, buffers: Container[str]) -> Iterator[dict[str, Tensor]]:
    """Yield tensors in groups of one file each; nothing in a process that gets no tensors."""
    chunk, size = {}, 0
    for name, tensor in weights:
        if tensor is None:
            continue
        is_bound = name in buffers and not tensor.isnan().any()
        if not is_bound and (found := not_finite([(name, tensor)])):
            raise UserError(
                f"the model is not written: its weight {name} holds {found[1]}; lower optim.lr of this "
                "stage (value_optim.lr for a value model), set its grad_clip, or use runtime.dtype=float32"
            )
        if chunk and size + tensor.nbytes > FILE_BYTES:
            yield chunk
            chunk, size = {}, 0
        chunk[name] = tensor
        size += tensor.nbytes
    if chunk:
        yield chunk


def _write_weights(model: PreTrainedModel, chunks: Iterable, folder: Path) -> None:
    """Write model.safetensors, or several files and their index, with the names of the hub."""
    places: list[list[str]] = []
    total = 0
    for number, chunk in enumerate(chunks):
        named = revert_weight_conversion(model, chunk)
        named = {name: tensor.contiguous() for name, tensor in named.items()}
        save_file(named, folder / f"part-{number}", metadata={"format": "pt"})
        places.append(list(named))
        total += sum(tensor.nbytes for tensor in named.values())
    if len(places) == 1:
        (folder / "part-0").rename(folder / "model.safetensors")
        return
    index = {}
    for number, names in enumerate(places):
        file = f"model-{number + 1:05}-of-{len(places):05}.safetensors"
        (folder / f"part-{number}").rename(folder / file)
        index |= dict.fromkeys(names, file)
    content = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=2) + "\n")


def set_pad(config: PretrainedConfig, pad_id: int) -> None:
    """Set the id of padding, also in the part about text: classifiers find the last token by it."""
    config.pad_token_id = config.get_text_config().pad_token_id = pad_id


def _put(beside: Path, folder: Path) -> None:
    """Flush all files to the disk and rename the folder.

    All files get the mode of config.json: safetensors writes files that only their owner can read.
    """
    mode = S_IMODE((beside / "config.json").stat().st_mode)
    for path in beside.iterdir():
        path.chmod(mode)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def _set_config(model: PreTrainedModel, weights: dict[str, Tensor], pad_id: int) -> None:
    """Set what `save_pretrained` would write, and the padding id."""
    model.config.architectures = [type(model).__name__]
    model.config.dtype = next(iter(weights.values())).dtype
    set_pad(model.config, pad_id)
    model.config.use_cache = True


def _generation(model: PreTrainedModel, end_ids: list[int], pad_id: int) -> GenerationConfig:
    """Return plain sampling at temperature 1, with no setting of the model it was trained from."""
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        bos_token_id=model.generation_config.bos_token_id,
        eos_token_id=end_ids if len(end_ids) > 1 else end_ids[0],
        pad_token_id=pad_id,
    )
