"""Evaluation of a model by the lm-evaluation-harness (EleutherAI), and its figures as rows."""

import copy
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_cli.artifacts.lm_eval import TaskScore
from rlhf_cli.config.errors import ExitCode, UserError
from rlhf_cli.config.schema import Model
from rlhf_cli.config.schema.model import LearningRates
from rlhf_cli.data.templates import build
from rlhf_cli.evaluation.lm_request import SPACE, ChatSpacing, LmEvalRequest
from rlhf_cli.evaluation.lm_tasks import Tasks, few_messages, load_tasks
from rlhf_cli.models.load import fit_embeddings, load_causal_lm, load_tokenizer
from rlhf_cli.telemetry.console import status

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens")  # names of one setting of a task
STDERR = "_stderr"
SEED = 1234  # of numpy, torch and the choice of solved examples, as in simple_evaluate


def evaluate(request: LmEvalRequest) -> list[TaskScore]:
    """Return a row per task and metric. Tasks and data are read before the model."""
    _seed()
    with few_messages(), status(f"reading {', '.join(request.tasks)}"):
        tasks = load_tasks(request.tasks, request.tasks_dir)
    with status(f"loading {request.model.path}"):
        network, tokenizer = open_model(request)
    return measure(request, tasks, network, tokenizer)


def open_model(request: LmEvalRequest) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model and its tokenizer: on a GPU in bfloat16 where there is one, else in float32.

    Weights come from safetensors alone, and no code of the model's folder is run.
    """
    model = request.model
    settings = Model(
        path=model.path,
        revision=model.revision,
        tokenizer=model.tokenizer,
        trust_remote_code=False,
        attention="auto",
        gradient_checkpointing=False,
        lr=LearningRates(sft=0.0, rm=0.0, policy=0.0, value=0.0),
    )
    tokenizer = load_tokenizer(settings)
    if request.chat and not tokenizer.chat_template:
        raise UserError(f"{model.title} has no chat template: --no-chat evaluates it without one")
    network = load_causal_lm(settings, unpadded=False)
    fit_embeddings(network, tokenizer)
    if torch.cuda.is_available():
        network = network.to("cuda", torch.bfloat16)
    return network.eval(), tokenizer


def measure(
    request: LmEvalRequest,
    tasks: Tasks,
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> list[TaskScore]:
    """Return a row per task and metric, groups with their parts.

    Shots are set as lm_eval.simple_evaluate sets them, which would also spend time on a description of
    the machine.
    """
    import lm_eval

    from rlhf_cli.evaluation.lm_model import StageLM

    spacing = spacing_of(tokenizer) if request.chat else None
    try:
        with few_messages():
            lm = StageLM(network, tokenizer, batch=request.batch, spacing=spacing)
            for task in tasks["tasks"].values():
                _require_room(task, lm)
                _set_shots(task, request.shots)
            found = lm_eval.evaluate(
                lm=lm,
                task_dict=tasks,
                limit=request.limit,
                log_samples=False,
                apply_chat_template=request.chat,
                fewshot_as_multiturn=request.chat,
                system_instruction=request.model.system if request.chat else None,
            )
    except torch.OutOfMemoryError as error:
        raise _Failed(f"out of memory: give --batch-size below {request.batch}") from error
    cut = {name: _num_cut(task, lm.cut) for name, task in tasks["tasks"].items()}
    return list(rows_of(found, request, cut, str(network.dtype).removeprefix("torch.")))


class _Failed(UserError):
    code = ExitCode.FAILURE


def _seed() -> None:
    """Seed the generators as simple_evaluate does."""
    random.seed(0)
    numpy.random.seed(SEED)
    torch.manual_seed(SEED)


def _set_shots(task: Any, shots: int | None) -> None:
    """Set the number of solved examples, unless the task's definition has none by intention."""
    own = task.get_config("num_fewshot")
    if own is None or (shots is not None and own != 0):
        task.set_config(key="num_fewshot", value=shots or 0)
    task.set_fewshot_seed(seed=SEED)


def spacing_of(tokenizer: PreTrainedTokenizerBase) -> ChatSpacing:
    """Return what the chat template puts between prompt and response, found by rendering a probe."""
    # A copy, because a renderer may add tokens for which a model of elsewhere has no embedding.
    renderer = build(copy.deepcopy(tokenizer), template="auto", system=None)
    space = SPACE if renderer.response_prefix == SPACE else ""
    return ChatSpacing(header=renderer.header, space=space)


def _require_room(task: Any, lm: Any) -> None:
    """Refuse a task whose responses may be longer than all that the model reads."""
    if task.OUTPUT_TYPE != "generate_until":
        return
    given = task.config.generation_kwargs or {}
    most = next((int(given[name]) for name in LENGTHS if name in given), lm.max_gen_toks)
    if most >= lm.max_length:
        raise UserError(
            f"the task {task.task_name} lets a model write {most} tokens, and this one has room for "
            f"{lm.max_length} with the question: take another task, or a definition of your own in "
            "--tasks-dir with a lower max_gen_toks"
        )


def _num_cut(task: Any, cut: set[str]) -> int:
    """Return the number of questions with an input of which the beginning was left out."""
    return len({one.doc_id for one in task.instances if one.args[0] in cut})


def rows_of(
    found: Mapping[str, Any], request: LmEvalRequest, cut: Mapping[str, int], dtype: str
) -> Iterator[TaskScore]:
    """Yield a row per task and metric of the harness's results. cut: questions cut, by task."""
    parts: Mapping[str, Sequence[str]] = found.get("group_subtasks") or {}
    group_of = {child: group for group, children in parts.items() for child in children}
    versions = {"lm_eval": version("lm_eval"), "transformers": version("transformers")}
    for task, metrics in found["results"].items():
        below = _below(task, parts)
        counts = [found["n-samples"][name]["effective"] for name in below]
        for key, value in metrics.items():
            name, comma, kept = key.partition(",")
            if not comma or name.endswith(STDERR):
                continue
            yield TaskScore(
                task=task,
                metric=name,
                filter=kept,
                value=_number(value),
                stderr=_number(metrics.get(f"{name}{STDERR},{kept}")),
                count=sum(counts),
                cut=sum(cut[one] for one in below),
                shots=_whole(found["n-shot"].get(task)),
                limit=request.limit,
                chat=request.chat,
                group=group_of.get(task),
                task_version=_text(found["versions"].get(task)),
                higher_is_better=(found["higher_is_better"].get(task) or {}).get(name),
                dtype=dtype,
                **versions,
            )


def _below(task: str, parts: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the tasks of which a row is the figure: itself, or all below a group."""
    if task not in parts:
        return [task]
    return list(dict.fromkeys(leaf for child in parts[task] for leaf in _below(child, parts)))


def _number(value: Any) -> float | None:
    """Return a finite number; None for "N/A" and whatever else the harness writes in its place."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
