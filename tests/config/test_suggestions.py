"""Suggestions for names that other trainers and methods use."""

import pytest

from rlhf_cli.config.compose import stage_list
from rlhf_cli.config.error_messages import unknown_key
from rlhf_cli.config.keys import GROUPS, nearest_keys, schema_keys
from rlhf_cli.config.schema import ConfigError
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.config.suggestions import COMMANDS, OURS, STAGE_WORDS, VALUES, not_here, ours
from tests.support.configuration import composed


def test_every_suggested_key_exists():
    known = {*schema_keys(), *GROUPS}
    wrong = {name for names in OURS.values() for name in names if name not in known}
    assert not wrong


def test_no_foreign_name_equals_an_existing_key():
    leaves = {key.rpartition(".")[2] for key in schema_keys()}
    assert leaves & set(OURS) == {"beta"}  # of DPO here; elsewhere of PPO's KL penalty too


@pytest.mark.parametrize(
    ("key", "suggested"),
    [
        ("num_train_epochs", ["sft.epochs", "rm.epochs", "ppo.inner_epochs"]),
        ("sft.num_train_epochs", ["sft.epochs"]),
        ("ppo.num_ppo_epochs", ["ppo.inner_epochs"]),
        ("per_device_train_batch_size", [f"{s}.batch.microbatch" for s in ("sft", "rm", "ppo")]),
        ("rm.per_device_train_batch_size", ["rm.batch.microbatch"]),
        ("batch_size", ["sft.batch.size", "rm.batch.size", "ppo.batch.minibatch"]),
        ("gradient_accumulation_steps", ["sft.batch.size", "rm.batch.size", "ppo.batch.minibatch"]),
        ("max_length", ["data.max_prompt_tokens", "data.max_response_tokens"]),
        ("learning_rate", ["sft.optim.lr", "rm.optim.lr", "ppo.optim.lr"]),
        ("sft.learning_rate", ["sft.optim.lr"]),
        ("ppo.beta", ["ppo.kl.coef"]),
        ("beta", ["dpo.beta", "ppo.kl.coef"]),
        ("ppo.init_kl_coef", ["ppo.kl.coef"]),
        ("ppo.steps", ["ppo.total_episodes", "ppo.max_steps"]),
        ("bf16", ["runtime.dtype"]),
        ("world", ["tiny_world"]),
        ("world.noise", ["tiny_world.noise"]),
        ("ppo.alarms", ["ppo.alerts"]),
        ("ppo.alarms.kl", ["ppo.alerts.kl"]),
        ("ppo.alarms.score_spread", ["ppo.alerts.score_std"]),
        ("runtime.graphs", ["runtime.cuda_graphs"]),
        ("runtime.reference_path", ["runtime.reference_implementation"]),
        ("output_dir", ["runs_dir", "name"]),
        ("report_to", ["tracking.trackers"]),
        ("model_name_or_path", ["model"]),
        ("model.flash_attention_2", ["model.attention"]),
        ("sft.optm.lrr", ["sft.optim.lr"]),
    ],
)
def test_keys_of_other_trainers_have_suggestions(key, suggested):
    assert nearest_keys(key) == suggested


def test_max_steps_is_a_key_of_every_training_stage():
    assert sorted(nearest_keys("max_steps")) == ["ppo.max_steps", "rm.max_steps", "sft.max_steps"]


def test_every_suggested_value_is_valid():
    for given, suggested in VALUES.items():
        key = given.partition("=")[0]
        with pytest.raises(
            ConfigError, match=f"(?i)^{given} is not one of .*: did you mean {suggested}"
        ):
            composed(given)
        assert composed(f"{key}={suggested}")


@pytest.mark.parametrize("key", ["lora_r", "model.lora", "sft.use_peft", "load_in_4bit"])
def test_a_key_of_adapters_is_refused_as_unsupported(key):
    assert "no LoRA, other adapter" in unknown_key(key)


def test_a_typing_error_is_not_taken_for_a_key_of_another_trainer():
    assert ours("sft.epohcs", schema_keys()) == []
    assert not_here("sft.epohcs") is None
    assert "did you mean sft.epochs?" in unknown_key("sft.epohcs")


def test_suggestions_stay_in_the_section_that_was_named():
    assert nearest_keys("sft.alarm") == []
    assert "sft has epochs" in unknown_key("sft.alarm")


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (
            "kto",
            f"there is no stage kto: stages are all, {', '.join(STAGES)}",
        ),
        (["sft", "KTO"], "there is no stage KTO: stages are"),
        (["sft", "GRPO"], "did you mean grpo?"),
        ("SFT", "did you mean sft?"),
        ("reward_model", "did you mean rm?"),
        ("eval", "did you mean evaluate?"),
        (1, f"stage=1 is not one of all, {', '.join(STAGES)}"),
        ({"sft": 1}, "is not one of all"),
        (None, "stage is empty"),
    ],
)
def test_an_unknown_stage_is_refused_with_a_suggestion(stage, expected):
    with pytest.raises(ConfigError) as error:
        stage_list(stage)
    assert expected in str(error.value)


def test_every_suggested_stage_exists():
    assert set(STAGE_WORDS.values()) <= {*STAGES, "all"}
    assert not set(COMMANDS) & set(STAGES)
