"""Every real file: numbers of kept and bad rows with reasons; then its tokens."""

import gzip
import json
from collections import Counter

import pytest

from rlhf_cli.config.schema import Batch, Source, Ties
from rlhf_cli.data.collate import BatchOptions, preference_batches
from rlhf_cli.data.templates import build
from tests.support.data_sources import encoded, leak_check, load, survey

TSV = {"columns": {"prompt": "0", "response": "1"}, "unescape": True}

# (path, role, settings of the source): records kept, bad rows by reason, rows left out
KEPT = [
    (
        "comparisons/hh_harmless_base.jsonl.gz",
        "comparisons",
        {},
        1172,
        {"prompts differ": 5, "empty chosen": 2},
        0,
    ),
    (
        "comparisons/hh_harmless_base.parquet",
        "comparisons",
        {},
        1172,
        {"prompts differ": 5, "empty chosen": 2},
        0,
    ),
    (
        "comparisons/hh_harmless_base.jsonl.gz",
        "demonstrations",
        {},
        1172,
        {"prompts differ": 5, "empty response": 2},
        0,
    ),
    ("comparisons/qa_feedback_k4.json", "comparisons", {}, 240, {}, 6),
    ("comparisons/kwise_qa_feedback.jsonl", "comparisons", {}, 240, {}, 6),
    ("comparisons/kwise_oasst.jsonl", "comparisons", {}, 115, {}, 0),
    ("comparisons/oasst_en_100_tree.jsonl", "comparisons", {}, 115, {"null rank": 2}, 0),
    ("comparisons/sharegpt_dpo_en.json", "comparisons", {}, 162, {}, 0),
    (
        "comparisons/instruction_politeness_pref.json",
        "comparisons",
        {},
        571,
        {"chosen == rejected": 4},
        0,
    ),
    ("comparisons/messages_kto_en.json", "comparisons", {}, 1, {}, 156),
    ("comparisons/messages_kto_en.json", "demonstrations", {}, 74, {}, 84),
    ("demonstrations/alpaca_3746.json", "demonstrations", {}, 1880, {"empty response": 3}, 0),
    ("demonstrations/alpaca_gpt4_en.json", "demonstrations", {}, 533, {}, 0),
    ("demonstrations/alpaca_gpt4_zh.json", "demonstrations", {}, 481, {}, 0),
    ("demonstrations/code_alpaca_2k.json", "demonstrations", {}, 978, {}, 0),
    ("demonstrations/instruction_1100.json", "demonstrations", {}, 575, {}, 0),
    ("demonstrations/gsm8k_train.jsonl", "demonstrations", {}, 3663, {}, 0),
    ("demonstrations/messages_parts_sft.jsonl", "demonstrations", {}, 252, {}, 0),
    ("demonstrations/sharegpt_identity.json", "demonstrations", {}, 137, {}, 0),
    ("demonstrations/sharegpt_toolcall_en.json", "demonstrations", {}, 161, {}, 0),
    ("demonstrations/self_instruct_seed_tasks.jsonl", "demonstrations", {}, 89, {}, 0),
    ("demonstrations/flan_cot/creak.tsv", "demonstrations", TSV, 3435, {}, 0),
    ("demonstrations/flan_cot/strategyqa.tsv", "demonstrations", TSV, 1061, {}, 0),
    ("demonstrations/flan_cot/qasc.tsv", "demonstrations", TSV, 552, {}, 0),
    ("demonstrations/t0_templates/ag_news.jsonl", "demonstrations", {}, 700, {}, 0),
    ("demonstrations/t0_templates/glue_mrpc.jsonl", "demonstrations", {}, 700, {}, 0),
    ("demonstrations/t0_templates/commonsense_qa.jsonl", "demonstrations", {}, 500, {}, 0),
    ("demonstrations/t0_templates/common_gen.jsonl", "demonstrations", {}, 900, {}, 0),
    ("demonstrations/t0_templates/quarel.jsonl", "demonstrations", {}, 500, {}, 0),
    ("demonstrations/t0_templates/app_reviews.jsonl", "demonstrations", {}, 400, {}, 0),
    ("demonstrations/t0_templates/gigaword.jsonl", "demonstrations", {}, 900, {}, 0),
    (
        "demonstrations/t0_templates/trec.jsonl",
        "demonstrations",
        {},
        0,
        {"empty response": 700},
        0,
    ),
    ("demonstrations/t0_templates/rotten_tomatoes.jsonl", "demonstrations", {}, 1000, {}, 0),
    ("demonstrations/t0_templates/sciq.jsonl", "demonstrations", {}, 500, {}, 0),
    ("prompts/hh_prompts.jsonl", "prompts", {}, 1178, {}, 0),
    ("prompts/vicuna_80.jsonl", "prompts", {}, 80, {}, 0),
    ("prompts/arena_hard_500.jsonl", "prompts", {}, 252, {}, 0),
    ("prompts/alpaca_eval_805.json", "prompts", {}, 322, {}, 0),
    ("prompts/real_toxicity_100.jsonl", "prompts", {}, 48, {}, 0),
    ("prompts/bias_templates_60.jsonl", "prompts", {}, 60, {}, 0),
    ("prompts/bold_gender.json", "prompts", {}, 3204, {}, 0),
    ("comparisons/oasst_en_100_tree.jsonl", "prompts", {}, 53, {}, 0),
    ("eval/truthfulqa.csv", "prompts", {}, 419, {}, 0),
    (
        "eval/truthfulqa.csv",
        "demonstrations",
        {"columns": {"prompt": "Question", "response": "Best Answer"}},
        419,
        {},
        0,
    ),
    ("eval/xstest_prompts.csv", "prompts", {}, 220, {}, 0),
    ("eval/ifeval_540.jsonl", "prompts", {}, 263, {}, 0),
    ("eval/crows_pairs.csv", "prompts", {}, 0, {"missing column": 774}, 0),
    ("eval/crows_pairs.csv", "pretraining", {"columns": {"text": "sent_more"}}, 774, {}, 0),
    (
        "eval/winogender_sentences.tsv",
        "prompts",
        {"columns": {"prompt": "sentence"}},
        384,
        {},
        0,
    ),
    ("eval/bbh/date_understanding.json", "demonstrations", {}, 250, {}, 0),
    ("eval/bbh/*.json", "prompts", {}, 2500, {}, 0),
]


@pytest.mark.parametrize(
    ("path", "role", "settings", "kept", "bad", "left_out"),
    KEPT,
    ids=[f"{path}-{role}" for path, role, *_ in KEPT],
)
def test_every_real_file_gives_its_known_numbers_of_rows(
    real_data, config, path, role, settings, kept, bad, left_out
):
    source = Source(path=str(real_data / path), **settings)
    report = survey(config(**{role: [source]}), role).report
    assert dict(report.bad) == bad
    assert (report.num_kept, report.left_out.total()) == (kept, left_out)


def test_the_same_rows_are_bad_in_both_files_of_hh(real_data, config):
    def lines(name):
        report = survey(
            config(comparisons=[real_data / "comparisons" / name]), "comparisons"
        ).report
        return {why: [row.origin.row for row in rows] for why, rows in report.examples.items()}

    found = lines("hh_harmless_base.jsonl.gz")
    assert found == lines("hh_harmless_base.parquet")
    assert found == {"empty chosen": [257, 555], "prompts differ": [634, 860, 994]}


def test_comparisons_have_the_labels_of_the_human_rankings(real_data, config):
    raw = json.loads((real_data / "comparisons" / "qa_feedback_k4.json").read_text())
    labels = Counter(label for row in raw for label in row["preference"])
    for name in ("qa_feedback_k4.json", "kwise_qa_feedback.jsonl"):
        cfg = config(comparisons=[real_data / "comparisons" / name], ties=Ties.soft)
        loaded = load(cfg, "comparisons")
        records = loaded.train + loaded.eval
        assert len(records) == 246
        assert sum(len(r.ties) for r in records) == labels[0] == 176
        assert sum(len(r.better) for r in records) == labels[1] + labels[2] == 1300
        assert loaded.report.notes["ties that fit no ranking, pairs used as labelled"] == 8
        assert loaded.report.notes["comparisons with a tie"] == 90


def test_derived_and_original_forms_of_the_rankings_give_the_same_records(real_data, config):
    def records(*names):
        cfg = config(
            comparisons=[real_data / "comparisons" / name for name in names], ties=Ties.soft
        )
        loaded = survey(cfg, "comparisons")
        return {
            (r.prompt[-1].content, r.responses, frozenset(r.better), frozenset(r.ties))
            for r in loaded.train + loaded.eval
        }

    assert records("qa_feedback_k4.json") == records("kwise_qa_feedback.jsonl")
    assert records("oasst_en_100_tree.jsonl") == records("kwise_oasst.jsonl")


def test_the_file_of_hh_prompts_contains_the_prompts_of_its_comparisons(real_data, config):
    cfg = config(comparisons=[real_data / "comparisons" / "hh_harmless_base.jsonl.gz"])
    from_pairs = survey(cfg, "prompts")
    listed = survey(config(prompts=[real_data / "prompts" / "hh_prompts.jsonl"]), "prompts")
    known = {r.messages for r in listed.train + listed.eval}
    assert {r.messages for r in from_pairs.train + from_pairs.eval} <= known
    assert leak_check({"comparisons": (from_pairs.train, []), "prompts": ([], listed.eval)}) == {}


def test_no_question_of_a_real_mixture_is_in_both_splits(real_data, config):
    cfg = config(
        demonstrations=[
            Source(path=str(real_data / "demonstrations" / "instruction_1100.json"), weight=1),
            Source(path=str(real_data / "demonstrations" / "alpaca_gpt4_en.json"), weight=2),
        ],
        comparisons=[
            real_data / "comparisons" / "instruction_politeness_pref.json",
            real_data / "comparisons" / "sharegpt_dpo_en.json",
        ],
    )
    loaded = {r: load(cfg, r) for r in ("demonstrations", "comparisons", "prompts")}
    assert leak_check({role: (one.train, one.eval) for role, one in loaded.items()}) == {}
    shared = {r.messages[:-1] for r in loaded["demonstrations"].train} & {
        r.prompt for r in loaded["comparisons"].train
    }
    assert len(shared) > 50  # the two sets do ask the same questions


def test_inputs_that_stand_for_none_are_counted(real_data, config):
    cfg = config(demonstrations=[real_data / "demonstrations" / "alpaca_3746.json"])
    notes = load(cfg, "demonstrations").report.notes
    inputs = [
        row["input"].strip(" <>.").lower()
        for row in json.loads((real_data / "demonstrations" / "alpaca_3746.json").read_text())
    ]
    expected = sum(text in ("noinput", "no input", "none", "n/a", "na") for text in inputs)
    assert notes["an input that stands for none, taken as empty"] == expected


def test_literal_end_marks_are_removed_from_every_row_of_t0(real_data, config):
    folder = real_data / "demonstrations" / "t0_templates"
    loaded = load(config(demonstrations=[folder / "*.jsonl"]), "demonstrations")
    assert loaded.report.num_kept == 6100
    assert loaded.report.notes["end-of-text mark written in the text, removed"] == 6800
    assert not any("<|endoftext|>" in r.messages[-1].content for r in loaded.train)


def test_escapes_of_flan_become_newlines_and_its_quotes_are_kept(real_data, config):
    source = Source(path=str(real_data / "demonstrations/flan_cot/creak.tsv"), **TSV)
    loaded = load(config(demonstrations=[source]), "demonstrations")
    records = sorted(loaded.train + loaded.eval, key=lambda r: r.origin.row)
    assert records[0].messages[0].content == (
        '"Marlboro used iconic imagery to promote its brand."\n'
        "Is the above claim true?\nOptions:\n- yes\n- no"
    )
    assert {r.messages[1].content for r in records} == {"yes", "no"}


def test_tool_turns_are_encoded_by_both_real_tokenizers(real_data, config, stories, gpt2):
    path = real_data / "demonstrations" / "sharegpt_toolcall_en.json"
    cfg = config(demonstrations=[path], max_prompt_tokens=8192, max_response_tokens=2048)
    loaded = load(cfg, "demonstrations")
    records = loaded.train + loaded.select + loaded.eval
    roles = Counter(m.role for r in records for m in r.messages)
    assert roles == {"user": 378, "assistant": 490, "tool": 112, "system": 109}
    for tokenizer in (stories, gpt2):
        renderer = build(tokenizer, template="auto", system=None)
        train, select, held = encoded(renderer, load(cfg, "demonstrations"), cfg.data)
        assert len(train + select + held) == 161
        ends = sum(e.ids.count(renderer.end_id) for e in train + select + held)
        assert ends == 490  # one for every assistant turn


@pytest.mark.parametrize("template", ["hh", "chatml"])
@pytest.mark.parametrize("name", ["stories", "gpt2"])
def test_hh_is_encoded_by_real_tokenizers_within_its_limits(
    real_data, config, request, name, template
):
    cfg = config(
        comparisons=[
            Source(path=str(real_data / "comparisons/hh_harmless_base.jsonl.gz"), limit=400)
        ],
        max_prompt_tokens=200,
        max_response_tokens=60,
    )
    renderer = build(request.getfixturevalue(name), template=template, system=None)
    loaded = load(cfg, "comparisons")
    train, _, held = encoded(renderer, loaded, cfg.data)
    report = loaded.report
    assert len(train) + len(held) == report.num_kept
    assert report.num_kept + report.num_bad + report.left_out.total() == 400
    cut = report.notes["response cut at the end, without its end token"]
    ended = sum(ids[-1] == renderer.end_id for e in train + held for ids in e.response_ids)
    assert ended + cut == 2 * report.num_kept
    assert all(len(e.prompt_ids) <= 200 for e in train + held)
    assert all(len(ids) <= 60 for e in train + held for ids in e.response_ids)
    assert report.notes["prompt cut at a message"] > 0


def test_kwise_rankings_are_batched_with_all_their_pairs(real_data, config, stories):
    cfg = config(
        comparisons=[real_data / "comparisons" / "kwise_oasst.jsonl"],
        max_prompt_tokens=128,
        max_response_tokens=64,
    )
    renderer = build(stories, template="auto", system=None)
    train, _, held = encoded(renderer, load(cfg, "comparisons"), cfg.data)
    steps = preference_batches(
        train + held,
        BatchOptions(
            batch=Batch(size=16, microbatch=12, max_tokens=None),
            seed=1,
            epoch=0,
            pad_id=renderer.pad_id,
        ),
    )
    pairs = sum(b.pairs.shape[0] for step in steps for b in step)
    with open(real_data / "comparisons" / "kwise_oasst.jsonl") as file:
        labelled = sum(len(json.loads(line)["pairs"]) for line in file)
    assert 0.9 * labelled < pairs <= labelled
    assert sum(b.num_prompts for step in steps for b in step) == len(train) + len(held)


def test_chinese_text_is_decoded_from_byte_tokens(real_data, config, gpt2):
    cfg = config(
        demonstrations=[
            Source(path=str(real_data / "demonstrations/alpaca_gpt4_zh.json"), limit=40)
        ],
        max_prompt_tokens=2000,
        max_response_tokens=4000,
    )
    renderer = build(gpt2, template="alpaca", system=None)
    train, _, _ = encoded(renderer, load(cfg, "demonstrations"), cfg.data)
    for example in train:
        learned = [t for t, m in zip(example.ids, example.loss_mask, strict=True) if m]
        assert renderer.decode_response(learned) == example.record.messages[-1].content


def test_a_role_word_inside_a_turn_of_hh_is_counted(real_data, config):
    path = real_data / "comparisons" / "hh_harmless_base.jsonl.gz"
    report = survey(config(comparisons=[path]), "comparisons").report
    assert report.notes["a role word inside a turn, kept as text"] == 10
    with gzip.open(path, "rt") as file:
        assert sum(1 for _ in file) == report.rows.total() == 1179
