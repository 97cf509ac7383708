"""What plain transformers loads: weights, config, tokenizer, template, generation config.

Weights come one tensor at a time, so that nobody has to hold a sharded model whole: at most one
file's worth is in memory.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
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
    """Write a model folder beside its place, then put it there.

    Every process calls this, for the weights are gathered together; the one that gets tensors
    writes. The pad id goes into the config: sequence classifiers find the last real token by it.
    Weights that are not finite are refused, and nothing is put there.
    """
    beside = folder.with_name(f".{folder.name}.tmp")
    # a weight that is tied has the name that save_pretrained gives it: the body's, not the head's
    tied = getattr(model, "all_tied_weights_keys", {})
    chunks = _chunks((tied.get(name, name), weight) for name, weight in weights)
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


def _chunks(weights: Weights) -> Iterator[dict[str, Tensor]]:
    """Tensors in groups of one file each; nothing at all where only others get them."""
    chunk, size = {}, 0
    for name, tensor in weights:
        if tensor is None:
            continue
        if found := not_finite([(name, tensor)]):
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
    """model.safetensors, or several files and their index; names as the hub has them."""
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
    """All bytes are on the disk; who may read one file may read all: safetensors writes private ones."""
    mode = S_IMODE((beside / "config.json").stat().st_mode)
    for path in beside.iterdir():
        path.chmod(mode)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def _set_config(model: PreTrainedModel, weights: dict[str, Tensor], pad_id: int) -> None:
    """What `save_pretrained` would say of the model, and the ids it was made with."""
    model.config.architectures = [type(model).__name__]
    model.config.dtype = next(iter(weights.values())).dtype
    set_pad(model.config, pad_id)
    model.config.use_cache = True


def _generation(model: PreTrainedModel, end_ids: list[int], pad_id: int) -> GenerationConfig:
    """Sampling from the model as it is: nothing of what the model it was made from brought along."""
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        bos_token_id=model.generation_config.bos_token_id,
        eos_token_id=end_ids if len(end_ids) > 1 else end_ids[0],
        pad_token_id=pad_id,
    )
