"""What other trainers call things, and what it is called here; what is not here at all.

Names of TRL, LLaMA-Factory, axolotl, OpenRLHF and Hugging Face's TrainingArguments.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType


def _table(rows: Mapping[str, str]) -> Mapping[str, tuple[str, ...]]:
    """ "a b" -> "x y" read as: a and b are called x or y here."""
    return MappingProxyType(
        {name: tuple(ours.split()) for names, ours in rows.items() for name in names.split()}
    )


def _table_of_texts(rows: Mapping[str, str]) -> Mapping[str, str]:
    """ "a b" -> text read as: of a and of b the text is shown."""
    return MappingProxyType({name: text for names, text in rows.items() for name in names.split()})


OURS = _table(
    {
        "num_train_epochs num_epochs max_epochs n_epochs epoch": "sft.epochs rm.epochs ppo.inner_epochs",
        "num_ppo_epochs ppo_epochs noptepochs update_epochs num_iterations": "ppo.inner_epochs",
        "batch_size train_batch_size global_batch_size gradient_accumulation_steps "
        "total_batch_size": "sft.batch.size rm.batch.size ppo.batch.minibatch",
        "per_device_train_batch_size per_device_batch_size micro_batch_size microbatch_size "
        "micro_train_batch_size device_batch_size": "sft.batch.microbatch rm.batch.microbatch "
        "ppo.batch.microbatch",
        "mini_batch_size minibatch_size num_mini_batches": "ppo.batch.minibatch",
        "rollout_batch_size num_rollouts local_rollout_forward_batch_size": "ppo.batch.rollout",
        "per_device_eval_batch_size eval_batch_size": "evaluation.batch",
        "learning_rate": "sft.optim.lr rm.optim.lr ppo.optim.lr",
        "actor_learning_rate actor_lr policy_lr": "ppo.optim.lr",
        "critic_learning_rate critic_lr value_lr": "ppo.value_optim.lr",
        "max_length max_seq_length max_seq_len max_len cutoff_len sequence_len seq_len "
        "model_max_length": "data.max_prompt_tokens data.max_response_tokens",
        "max_prompt_length prompt_max_len max_source_length": "data.max_prompt_tokens",
        "max_new_tokens response_length generate_max_len max_completion_length "
        "max_target_length": "data.max_response_tokens",
        "beta init_kl_coef init_kl_coeff kl_coef kl_ctl kl_penalty kl_beta": "ppo.kl.coef",
        "adap_kl_ctrl kl_controller": "ppo.kl.controller",
        "kl_target target_kl": "ppo.kl.target",
        "kl_horizon": "ppo.kl.horizon",
        "cliprange clip_range eps_clip epsilon cliprange_policy": "ppo.clip_eps",
        "cliprange_value value_clip clip_range_value": "ppo.value_clip_eps",
        "lam lambd lmbda": "ppo.gae_lambda",
        "vf_coeff value_loss_coef vf_loss_coef": "ppo.vf_coef",
        "ptx_coef pretrain_coef": "ppo.ptx.coef",
        "missing_eos_penalty non_eos_penalty penalty_reward_value": "ppo.missing_eos.value",
        "episodes num_episodes steps total_steps": "ppo.total_episodes ppo.max_steps sft.max_steps "
        "rm.max_steps",
        "bf16 fp16 tf32 precision mixed_precision torch_dtype": "runtime.dtype",
        "nproc_per_node num_gpus n_gpus gpus world_size num_devices": "runtime.num_processes",
        "deepspeed_config zero_stage fsdp strategy": "runtime",
        "device_map no_cuda use_cpu": "runtime.device",
        "torch_compile": "runtime.compile",
        "ddp_timeout": "runtime.timeout",
        "output_dir save_path ckpt_path logging_dir": "runs_dir name",
        "run_name exp_name experiment_name": "name",
        "overwrite_output_dir resume_from_checkpoint load_checkpoint": "resume",
        "report_to use_wandb log_with logger wandb": "tracking.trackers",
        "wandb_project": "tracking.project",
        "logging_steps log_every log_interval log_freq": "tracking.every",
        "save_steps save_interval checkpoint_every": "save.every_steps",
        "save_total_limit max_ckpt_num": "save.keep",
        "model_name_or_path base_model model_name model_id pretrain hf_model": "model",
        "tokenizer_name tokenizer_path": "model.tokenizer",
        "attn_implementation flash_attention flash_attn flash_attention_2 "
        "use_flash_attention_2": "model.attention",
        "gradient_checkpointing_kwargs disable_gradient_checkpointing": "model.gradient_checkpointing",
        "reward_model_path reward_pretrain reward_model_name": "parents.rm",
        "sft_model_path sft_model ref_model adapter_name_or_path": "parents.sft",
        "dataset datasets dataset_name dataset_path data_path train_file "
        "train_data": "data data.demonstrations data.comparisons data.prompts",
        "chat_template": "data.template",
        "system_prompt default_system": "data.system",
        "val_set_size val_size eval_size test_size": "data.eval_fraction",
        "warmup_ratio lr_warmup_ratio warmup_steps num_warmup_steps lr_warmup_steps "
        "lr_warmup_iters": "sft.schedule.warmup rm.schedule.warmup ppo.schedule.warmup",
        "lr_scheduler_type lr_scheduler scheduler": "sft.schedule.kind rm.schedule.kind "
        "ppo.schedule.kind",
        "min_lr min_lr_ratio": "sft.schedule.final rm.schedule.final ppo.schedule.final",
        "max_grad_norm gradient_clipping max_norm clip_grad": "sft.optim.grad_clip rm.optim.grad_clip "
        "ppo.optim.grad_clip",
        "adam_beta1 adam_beta2 adam_betas": "sft.optim.betas rm.optim.betas ppo.optim.betas",
        "adam_epsilon": "sft.optim.eps rm.optim.eps ppo.optim.eps",
        "l2 wd": "sft.optim.weight_decay rm.optim.weight_decay ppo.optim.weight_decay",
        "packing sample_packing": "sft.batching",
        "train_on_inputs train_on_prompt completion_only_loss assistant_only_loss "
        "mask_history": "sft.loss_on",
        "lora_dropout dropout_rate": "sft.dropout rm.dropout",
        "label_smoothing_factor": "rm.label_smoothing",
        "center_rewards_coefficient": "rm.center_coef",
        "load_best_model_at_end metric_for_best_model early_stopping_patience": "sft.select_by",
        "n_samples best_of": "evaluation.best_of_n",
        "random_seed data_seed": "seed",
        "world": "tiny_world",
        "alarms": "ppo.alerts",
        "score_spread": "ppo.alerts.score_std",
        "score_size": "ppo.alerts.score_rms",
        "graphs use_cuda_graph enable_cuda_graph": "runtime.cuda_graphs",
        "reference_path": "runtime.reference_implementation",
        "dry": "dry_run",
    }
)

NOT_HERE = _table_of_texts(
    {
        "lora qlora dora peft use_peft use_lora peft_config adapter lora_r lora_rank lora_alpha "
        "lora_target lora_target_modules lora_modules_to_save load_in_4bit load_in_8bit "
        "quantization quantization_bit quantization_config finetuning_type "
        "bnb_4bit_quant_type": "no LoRA, other adapter or quantisation here: every weight is trained",
        "vllm use_vllm vllm_mode num_vllm_engines": "no sampler here but our own",
        "push_to_hub hub_model_id hub_token": "no upload here: `hf upload` does it",
        "neftune neftune_noise_alpha": "no noise on embeddings here",
        "streaming max_samples": "no such key: limit of a source takes its first rows",
        "eval_steps eval_strategy evaluation_strategy": "no evaluation within an epoch, only at its end",
    }
)

# "key=value": the value that is meant.
VALUES: Mapping[str, str] = MappingProxyType(
    {
        "resume=whole": "last_valid",
        "resume=latest": "auto",
        "resume=last": "auto",
        "resume=true": "auto",
        "resume=false": "never",
        "sft.batching=group_by_length": "grouped",
        "sft.batching=packing": "packed",
        "sft.loss_on=completion": "response",
        "sft.loss_on=assistant": "response",
    }
)

STAGE_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "pretrain": "sft", "finetune": "sft", "fine_tune": "sft", "supervised": "sft",
        "reward": "rm", "reward_model": "rm", "reward_modeling": "rm", "rm_train": "rm",
        "rl": "ppo", "rlhf": "all", "train": "all", "eval": "evaluate", "evaluation": "evaluate",
        "test": "evaluate", "judge": "evaluate", "ipo": "dpo", "cdpo": "dpo", "dapo": "grpo",
        "gspo": "grpo", "bon": "best_of_n", "best_of": "best_of_n",
    }
)  # fmt: skip
OTHER_METHODS = (
    "kto", "orpo", "simpo", "cpo", "online_dpo", "xpo", "nash_md", "bco", "prm", "gkd", "remax",
    "reinforce++", "distill",
)  # fmt: skip

# What a person may try as a command, and the way there is.
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "chat": "transformers loads and talks to runs/<name>/ppo/model (README)",
        "generate": "transformers loads and samples from runs/<name>/ppo/model (README)",
        "serve": "vllm, or whatever serves Hugging Face folders, takes runs/<name>/ppo/model",
        "export": "runs/<name>/<stage>/model is a Hugging Face folder already",
        "push": "hf upload ORG/NAME runs/<name>/<stage>/model does it",
        "upload": "hf upload ORG/NAME runs/<name>/<stage>/model does it",
        "compare": "rlhf show A B compares runs: what differs, their figures side by side",
        "diff": "rlhf show A B compares runs: what differs, their figures side by side",
        "plot": "tracking.trackers=[tensorboard] writes curves",
        "plan": "rlhf run dry_run=true shows what a run would do",
        "list": "rlhf show lists the runs",
        "ls": "rlhf show lists the runs",
        "sweep": "rlhf run -m key=value,value is a sweep",
        "resume": "rlhf run with the same words resumes a stopped run",
        "train": "rlhf run runs all stages, rlhf run stage=sft one of them",
        "check": "rlhf data check reads the data and trains nothing",
        "benchmark": "rlhf lm-eval runs/<name>/ppo TASK .. measures published tasks",
        "mmlu": "rlhf lm-eval runs/<name>/ppo mmlu measures it",
        "init": "rlhf config prints every setting; your own go into a YAML file: rlhf run my.yaml",
        "doctor": "rlhf run dry_run=true names the device and loads everything once",
        "env": "rlhf run dry_run=true names the device and loads everything once",
    }
)


def ours(key: str, known: Iterable[str]) -> list[str]:
    """Return what the key of another trainer is called here; of the same stage where it begins with one."""
    section, _, leaf = key.lower().replace("-", "_").rpartition(".")
    meant = [name for name in OURS.get(leaf, ()) if name in set(known) or "." not in name]
    top = section.partition(".")[0]
    return [name for name in meant if top and name.startswith(f"{top}.")] or meant


def not_here(key: str) -> str | None:
    """Return what the key asks for, where this project does not have it at all."""
    return NOT_HERE.get(key.lower().replace("-", "_").rpartition(".")[2])
