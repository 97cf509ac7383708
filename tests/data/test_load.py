"""From configuration to records: kept, held out, mixed, counted, refused and paired rows."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_cli.config.schema import Source, Ties
from rlhf_cli.data.formats.prompts import REFERENCE
from rlhf_cli.data.formats.table import convert
from rlhf_cli.data.load import paired
from rlhf_cli.data.records import BadRow, DataError, Filtered, Labelled, Message, Origin
from rlhf_cli.data.spec import ROLES
from rlhf_cli.data.split import HASHED, NAMED, SINGLE, TOO_FEW, opening
from rlhf_cli.pipeline.data_check import check_all
from tests.support.data_sources import leak_check, load, place_of, survey

QUESTION = (Message("user", "Why?"),)
ROLE = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 18), st.booleans()), max_size=2)


def shown(n, word="q"):
    return [{"prompt": f"{word} {i}", "response": f"a {i}"} for i in range(n)]


def ranked(n, word="q"):
    return [{"prompt": f"{word} {i}", "chosen": f"a {i}", "rejected": f"b {i}"} for i in range(n)]


def asked(n, word="q"):
    return [{"prompt": f"{word} {i}"} for i in range(n)]


def turns(prompt, response, label):
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return {"messages": messages, "label": label}


def columns(prompt, response, label):
    return {"prompt": prompt, "completion": response, "label": label}


def records(row, role="comparisons"):
    return convert(row, Origin("a.jsonl", 1, 1), Source(path="a.jsonl"), role)[0]


def sides_of(loaded):
    return loaded.train, loaded.select, loaded.eval


def test_the_same_questions_are_held_out_in_every_role(config, write):
    cfg = config(
        demonstrations=[write("d.jsonl", shown(300))],
        comparisons=[write("c.jsonl", ranked(300))],
        prompts=[write("p.jsonl", asked(300))],
    )
    loaded = {role: load(cfg, role) for role in ("demonstrations", "comparisons", "prompts")}
    held = [{opening(r) for r in one.eval} for one in loaded.values()]
    assert held[0] == held[1] == held[2]
    assert 30 < len(held[0]) < 90
    assert leak_check({role: (one.train, one.eval) for role, one in loaded.items()}) == {}
    for one in loaded.values():
        assert (one.report.num_train, one.report.num_eval) == (len(one.train), len(one.eval))
        assert one.report.num_kept == one.report.rows.total() == 300


def test_selection_rows_are_neither_trained_on_nor_held_out(config, write):
    """Only demonstrations have this split; all splits are disjoint and follow the hash."""
    cfg = config(
        demonstrations=[write("d.jsonl", shown(300))],
        prompts=[write("p.jsonl", asked(300))],
        select_fraction=0.15,
    )
    loaded, prompts = load(cfg, "demonstrations"), load(cfg, "prompts")
    train, select, held = ({opening(r) for r in side} for side in sides_of(loaded))
    assert train | select | held == {f"q {i}" for i in range(300)}
    assert len(train) + len(select) + len(held) == 300
    assert select == {q for q in train | select | held if 0.2 <= place_of(q, seed=cfg.seed) < 0.35}
    assert 25 < len(select) < 65
    assert select.isdisjoint(opening(r) for r in prompts.eval)
    assert prompts.select == [] and select <= {opening(r) for r in prompts.train}
    assert loaded.report.headline() == (
        f"demonstrations: 300 rows read, 300 records kept ({len(train)} train, {len(select)} to "
        f"select by, {len(held)} held out), 0 bad (0.0%), 0 left out"
    )


def test_questions_of_an_eval_source_are_not_in_the_selection_split(config, write):
    """This holds for an eval source of any role; the selection band of other rows is the same."""
    cfg = config(
        demonstrations=[write("d.jsonl", shown(200))],
        prompts=[
            write("p.jsonl", asked(50, "other")),
            Source(path=str(write("e.jsonl", asked(100))), eval=True),
        ],
    )
    loaded = load(cfg, "demonstrations")
    select = {opening(r) for r in loaded.select}
    assert select.isdisjoint(opening(r) for r in load(cfg, "prompts").eval)
    rest = {f"q {i}" for i in range(100, 200)}
    assert select == {q for q in rest if 0.2 <= place_of(q, seed=cfg.seed) < 0.25} != set()


def test_an_eval_source_does_not_change_the_selection_band(config, write):
    """With an eval source, rows held out by their hash are trained on, never used for selection."""
    held = Source(path=str(write("e.jsonl", shown(1, "other"))), eval=True)
    cfg = config(demonstrations=[write("d.jsonl", shown(200)), held])
    train, select, _ = (
        {opening(r) for r in side} for side in sides_of(load(cfg, "demonstrations"))
    )
    assert (
        select == {q for q in train | select if 0.2 <= place_of(q, seed=cfg.seed) < 0.25} != set()
    )
    assert any(place_of(q, seed=cfg.seed) < 0.2 for q in train)


@pytest.mark.parametrize("num", [2, 3, 5])
def test_few_questions_are_divided_between_training_and_selection(config, write, num):
    held = Source(path=str(write("e.jsonl", shown(1, "other"))), eval=True)
    for seed in range(20):
        cfg = replace(config(demonstrations=[write("d.jsonl", shown(num)), held]), seed=seed)
        loaded = load(cfg, "demonstrations")
        assert loaded.train and loaded.select
        assert len(loaded.train) + len(loaded.select) == num
        assert load(cfg, "demonstrations").select == loaded.select
        in_band = [r for r in loaded.select if 0.2 <= place_of(opening(r), seed=seed) < 0.25]
        assert (TOO_FEW in loaded.report.notes) == (not in_band)


def test_a_single_question_is_trained_on(config, write):
    held = Source(path=str(write("e.jsonl", shown(1, "other"))), eval=True)
    loaded = load(config(demonstrations=[write("d.jsonl", shown(1) * 9), held]), "demonstrations")
    assert [len(side) for side in sides_of(loaded)] == [9, 0, 1]
    assert SINGLE in loaded.report.notes


def test_prompts_default_to_the_distinct_prompts_of_the_comparisons(config, write):
    rows = ranked(50) + [row | {"rejected": "other"} for row in ranked(50)]
    loaded = load(config(comparisons=[write("c.jsonl", rows)]), "prompts")
    found = [r.messages[0].content for r in loaded.train + loaded.eval]
    assert sorted(found) == sorted(f"q {i}" for i in range(50))
    assert loaded.report.left_out["a repeated prompt"] == 50
    assert loaded.report.num_kept == 50


def test_bad_rows_are_skipped_counted_and_reported(config, write):
    rows = ranked(60)
    rows[3] |= {"chosen": " "}
    rows[7] |= {"rejected": rows[7]["chosen"]}
    rows[8] |= {"rejected": rows[8]["chosen"]}
    path = write("c.jsonl", rows)
    report = load(config(comparisons=[path]), "comparisons").report
    assert report.bad == {"empty chosen": 1, "chosen == rejected": 2}
    assert report.num_kept == 57
    assert str(report.examples["empty chosen"][0]) == f"{path}:4: empty chosen"
    assert [row.origin.line for row in report.examples["chosen == rejected"]] == [8, 9]
    assert report.bad_fraction == 3 / 60


def test_more_bad_rows_than_allowed_are_refused_in_one_line(config, write):
    rows = ranked(10)
    rows[1] |= {"chosen": ""}
    path = write("c.jsonl", rows)
    load(config(comparisons=[path], max_bad_fraction=0.1), "comparisons")
    with pytest.raises(DataError) as error:
        load(config(comparisons=[path], max_bad_fraction=0.05), "comparisons")
    assert "1 of 10 rows are bad (10.0%), more than data.max_bad_fraction=0.05" in str(error.value)
    assert f"{path}:2: empty chosen" in str(error.value)
    assert "\n" not in str(error.value)


def test_strict_stops_at_the_first_bad_row(config, write):
    path = write("c.jsonl", [*ranked(2), {"prompt": "x"}, *ranked(20, "r")])
    with pytest.raises(DataError, match=r"c\.jsonl:3: missing column: .*data\.strict=true stops"):
        load(config(comparisons=[path], strict=True), "comparisons")


def test_an_invalid_json_line_is_a_bad_row(config, write):
    lines = [json.dumps(row) for row in shown(30)]
    lines[4] = lines[4][:-1]
    report = load(config(demonstrations=[write("d.jsonl", "\n".join(lines))]), "demonstrations")
    assert report.report.bad == {"not valid JSON": 1}
    assert report.report.examples["not valid JSON"][0].origin.line == 5


def test_a_file_without_usable_rows_is_refused_with_the_first_reason(config, write):
    path = write("c.jsonl", [{"frage": "x", "antwort": "y"}])
    with pytest.raises(DataError, match=r"no row is left; first: .*c\.jsonl:1: missing column"):
        load(config(demonstrations=[path]), "demonstrations")


def test_an_empty_split_is_refused_with_the_remedy(config, write):
    rows = [{"prompt": "always the same", "response": str(i)} for i in range(20)]
    with pytest.raises(DataError, match=r"none is left to (train on|hold out).*eval_fraction"):
        load(config(demonstrations=[write("d.jsonl", rows)]), "demonstrations")


def test_an_eval_source_is_held_out_and_its_questions_are_not_trained_on(config, write):
    train, test = write("train.jsonl", shown(40)), write("test.jsonl", shown(10))
    cfg = config(demonstrations=[Source(path=str(train)), Source(path=str(test), eval=True)])
    loaded = load(cfg, "demonstrations")
    assert (len(loaded.train) + len(loaded.select), len(loaded.eval)) == (30, 10)
    assert loaded.report.left_out == {NAMED: 10}
    assert leak_check({"demonstrations": (loaded.train, loaded.eval)}) == {}


def test_questions_of_an_eval_source_are_held_out_in_every_role(config, write):
    cfg = config(
        demonstrations=[write("d.jsonl", shown(60))],
        comparisons=[
            write("c.jsonl", ranked(60, "other")),
            Source(path=str(write("e.jsonl", ranked(10))), eval=True),
        ],
    )
    loaded = load(cfg, "demonstrations")
    trained, held = ({opening(r) for r in side} for side in (loaded.train, loaded.eval))
    assert trained.isdisjoint(f"q {i}" for i in range(10))
    assert held >= {f"q {i}" for i in range(10)}


def test_questions_held_out_by_hash_in_one_role_are_trained_on_in_no_other(config, write):
    """Those rows are left out and counted; only the role's own eval source is held out."""
    cfg = config(
        demonstrations=[
            write("d.jsonl", shown(200)),
            Source(path=str(write("e.jsonl", shown(9, "other"))), eval=True),
        ],
        comparisons=[write("c.jsonl", ranked(200))],
    )
    loaded = load(cfg, "demonstrations")
    held = {opening(r) for r in load(cfg, "comparisons").eval}
    assert held == {f"q {i}" for i in range(200) if place_of(f"q {i}", seed=cfg.seed) < 0.2}
    assert held.isdisjoint(opening(r) for r in loaded.train + loaded.select)
    assert loaded.report.left_out == {HASHED: len(held)}
    assert {opening(r) for r in loaded.eval} == {f"other {i}" for i in range(9)}


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(roles=st.tuples(ROLE, ROLE, ROLE, ROLE), seed=st.integers(0, 5))
def test_no_question_is_trained_on_in_one_role_and_held_out_in_another(
    config, tmp_path, roles, seed
):
    """Each drawn source is (first question, number of questions, marked eval)."""
    rows = (shown, ranked, asked, lambda n: [{"text": f"q {i}"} for i in range(n)])
    sources = {}
    for role, row, drawn in zip(ROLES, rows, roles, strict=True):
        sources[role] = []
        for number, (first, num, is_eval) in enumerate(drawn):
            path = tmp_path / f"{role}-{number}.jsonl"
            path.write_text("\n".join(json.dumps(r) for r in row(first + num)[first:]))
            sources[role].append(Source(path=str(path), eval=is_eval))
    cfg = replace(config(**sources), seed=seed)
    loaded = {role: survey(cfg, role) for role in ROLES}
    marked = {f"q {i}" for drawn in roles for first, num, is_eval in drawn if is_eval
              for i in range(first, first + num)}  # fmt: skip
    texts = loaded["pretraining"]  # raw texts are no questions: only eval sources hold out some
    assert marked.isdisjoint(opening(r) for r in texts.train)
    sides = {r: (one.train + one.select, one.eval) for r, one in loaded.items() if one is not texts}
    assert leak_check(sides) == {}
    for one in loaded.values():
        assert one.report.num_kept == len(one.train + one.select + one.eval)


def test_weights_are_shares_of_a_mixture_that_depends_on_the_seed(config, write):
    paths = [write("a.jsonl", shown(300, "a")), write("b.jsonl", shown(300, "b"))]
    sources = [Source(path=str(p), weight=w) for p, w in zip(paths, (3, 1), strict=True)]
    cfg = config(demonstrations=sources)
    loaded = load(cfg, "demonstrations")
    shares = Counter(r.messages[0].content[0] for r in loaded.train)
    assert shares["a"] == pytest.approx(3 * shares["b"], abs=3)
    assert len({opening(r) for r in loaded.train}) == len(loaded.train)
    num_kept = len(loaded.train + loaded.select + loaded.eval)
    assert loaded.report.left_out.total() == 600 - num_kept
    assert loaded.report.num_kept == num_kept
    assert load(cfg, "demonstrations").train == loaded.train
    assert load(replace(cfg, seed=9), "demonstrations").train != loaded.train


def test_weights_of_only_some_sources_are_refused(config, write):
    paths = [write("a.jsonl", shown(30, "a")), write("b.jsonl", shown(30, "b"))]
    sources = [Source(path=str(paths[0]), weight=1), Source(path=str(paths[1]))]
    with pytest.raises(DataError, match=r"every source .* a weight, or none.*b\.jsonl"):
        load(config(demonstrations=sources), "demonstrations")


def test_comparisons_of_ties_alone_are_kept_unless_ties_are_dropped(config, write):
    rows = [{"prompt": f"q {i}", "responses": ["a", "b"], "rank": [0, i % 2]} for i in range(60)]
    path = write("c.jsonl", rows)
    assert load(config(comparisons=[path], ties=Ties.drop), "comparisons").report.num_kept == 30
    assert load(config(comparisons=[path], ties=Ties.soft), "comparisons").report.num_kept == 60


def test_the_prompts_of_comparisons_do_not_depend_on_rm_ties(config, write):
    rows = [{"prompt": f"q {i}", "responses": ["a", "b"], "rank": [0, i % 2]} for i in range(60)]
    path = write("c.jsonl", rows)
    for ties in (Ties.drop, Ties.soft):
        assert load(config(comparisons=[path], ties=ties), "prompts").report.num_kept == 60


def test_literal_end_marks_are_removed_and_counted(config, write):
    rows = [{"prompt": f"q {i}", "completion": f"a {i}<|endoftext|>"} for i in range(30)]
    rows[4]["completion"] = "<|endoftext|>"
    loaded = load(config(demonstrations=[write("d.jsonl", rows)]), "demonstrations")
    assert all("<" not in r.messages[1].content for r in loaded.train)
    assert loaded.report.notes["end-of-text mark written in the text, removed"] == 30
    assert loaded.report.bad == {"empty response": 1}


def test_unused_columns_are_noted_once(config, write):
    rows = [row | {"source": "x", "score": 1} for row in shown(60)]
    path = write("d.jsonl", rows)
    report = load(config(demonstrations=[path]), "demonstrations").report
    assert report.notes == {f"columns of {path} not used: source, score": 1}


def test_raw_text_is_not_split(config, write):
    path = write("t.txt", "one\ntwo\nthree\n")
    loaded = load(config(pretraining=[path]), "pretraining")
    assert [r.messages[0].content for r in loaded.train] == ["one", "two", "three"]
    assert loaded.eval == []


def test_raw_text_marked_eval_is_never_trained_on(config, write):
    held = Source(path=str(write("e.txt", "four\n")), eval=True)
    loaded = load(config(pretraining=[write("t.txt", "one\n"), held]), "pretraining")
    assert [len(loaded.train), len(loaded.eval)] == [1, 1]


def test_a_role_without_sources_is_refused(config):
    loaded = survey(config(), "demonstrations")
    assert (loaded.train, loaded.eval) == ([], [])
    with pytest.raises(DataError, match=r"data\.demonstrations has no rows: name a source"):
        load(config(), "demonstrations")


def test_a_file_of_empty_lines_is_refused(config, write):
    with pytest.raises(DataError, match=r"d\.jsonl holds no rows"):
        load(config(demonstrations=[write("d.jsonl", "\n\n")]), "demonstrations")


def test_the_tiny_world_is_read_as_a_source(config):
    cfg = config(
        demonstrations=["tiny_world:demonstrations"],
        comparisons=["tiny_world:comparisons"],
        prompts=["tiny_world:prompts"],
        pretraining=["tiny_world:pretraining"],
    )
    small = replace(cfg.tiny_world, demonstrations=60, comparisons=60, prompts=60)
    cfg = replace(cfg, tiny_world=small)
    for role in ("demonstrations", "comparisons", "prompts"):
        loaded = load(cfg, role)
        assert loaded.train
        assert loaded.eval
        assert loaded.report.num_bad == 0
        assert not any(r.meta.get("held_out") for r in loaded.train)
    assert any(r.meta["held_out"] for r in load(cfg, "prompts").eval)


def test_a_tiny_world_source_of_another_role_is_refused(config):
    with pytest.raises(DataError, match=r"belongs under data\.comparisons"):
        load(config(prompts=["tiny_world:comparisons"]), "prompts")
    with pytest.raises(DataError, match="tiny_world:nothing is not one of"):
        load(config(prompts=["tiny_world:nothing"]), "prompts")


def test_check_all_reports_every_role_despite_errors(config, write, plain_renderer):
    cfg = config(
        demonstrations=["no/such/file.jsonl"],
        comparisons=[write("c.jsonl", [{"prompt": "x"}, *ranked(30)])],
        prompts=[write("p.jsonl", asked(30))],
        max_bad_fraction=0.0,
    )
    reports = {report.role: report for report in check_all(cfg, plain_renderer)}
    assert list(reports) == ["demonstrations", "comparisons", "prompts"]
    assert "does not exist" in reports["demonstrations"].verdict()
    assert "1 of 31 rows are bad" in reports["comparisons"].verdict()
    assert reports["prompts"].verdict() is None


def test_check_all_reports_texts_that_are_too_long(config, write, plain_renderer):
    rows = shown(30)
    rows[2]["prompt"] = "w" * 500
    cfg = config(demonstrations=[write("d.jsonl", rows)])
    (report,) = check_all(cfg, plain_renderer)
    assert report.notes["prompt cut within a line"] == 1
    (report,) = check_all(replace(cfg, data=replace(cfg.data, max_prompt_tokens=5)), plain_renderer)
    assert report.left_out["prompt too long"] == 30
    assert "after tokenising" in report.verdict()


def test_survey_reports_errors_without_raising(config, write):
    cfg = config(comparisons=[write("c.jsonl", [{"prompt": "x"}])], max_bad_fraction=0.0)
    assert survey(cfg, "comparisons").report.verdict() is not None


def test_an_unknown_role_raises_value_error(config):
    with pytest.raises(ValueError, match="role 'promts' is not one of"):
        load(config(), "promts")


@pytest.mark.parametrize("form", [turns, columns])
def test_a_judged_response_is_read_with_its_label(form):
    origin = Origin("a.jsonl", 1, 1)
    assert records(form("Why?", "Because.", True)) == [Labelled(QUESTION, "Because.", True, origin)]
    assert records(form("Why?", "Dunno.", False)) == [Labelled(QUESTION, "Dunno.", False, origin)]
    assert records(form("Why?", "Dunno.", False), "prompts")[0].messages == QUESTION


@pytest.mark.parametrize("form", [turns, columns])
def test_only_a_good_response_is_a_demonstration(form):
    (found,) = records(form("Why?", "Because.", "True"), "demonstrations")
    assert found.messages == (*QUESTION, Message("assistant", "Because."))
    with pytest.raises(Filtered, match="labelled as a bad response"):
        records(form("Why?", "Dunno.", "False"), "demonstrations")


def test_a_prompt_of_a_comparison_has_the_response_that_never_loses_as_reference(config, write):
    """Of a tie for the first place there is none, nor of a prompt without responses."""
    ranks = [{"prompt": "q 1", "responses": ["a", "b", "c"], "rank": [1, 0, 2]}]
    ranks += [
        {"prompt": f"q {i}", "responses": ["a", "b"], "rank": [i % 3, 1]} for i in range(2, 40)
    ]
    ranks += [{"prompt": "tied", "responses": ["a", "b", "c"], "rank": [0, 0, 1]}]
    loaded = load(config(comparisons=[write("c.jsonl", ranks)]), "prompts")
    found = {one.messages[0].content: one.reference for one in (*loaded.train, *loaded.eval)}
    assert found["q 1"] == "b" and found["q 3"] == "a" and found["q 2"] == "b"
    assert found["tied"] is None
    prompts = [{"prompt": "x", "response": "y"}, *asked(30)]
    loaded = load(config(prompts=[write("p.jsonl", prompts)]), "prompts")
    found = {one.messages[0].content: one.reference for one in (*loaded.train, *loaded.eval)}
    assert found["x"] == "y" and found["q 1"] is None
    assert loaded.report.notes == {REFERENCE: 1}


def test_both_labels_of_a_prompt_make_one_comparison():
    def row(prompt, response, good, line):
        return Labelled((Message("user", prompt),), response, good, Origin("a", line, line))

    bad = BadRow(Origin("a", 9, 9), "not valid JSON")
    rows = [row("Why?", "a", False, 1), row("Who?", "b", True, 2), bad]
    rows += [row("Why?", "c", True, 3), row("Why?", "d", False, 4)]
    first, pair, alone = paired(rows)
    assert first is bad
    assert pair.prompt == QUESTION
    assert pair.responses == ("a", "c", "d")
    assert (set(pair.better), pair.ties) == ({(1, 0), (1, 2)}, ())
    assert pair.origin.line == 1
    assert alone.origin.line == 2
    assert isinstance(alone.error(), Filtered)


def test_a_file_of_judged_responses_is_read_as_comparisons(write, config):
    rows = [columns(f"q{i}", text, text == "a") for i in range(40) for text in "ab"]
    path = write("kto.jsonl", [*rows, columns("alone", "a", True)])
    report = survey(config(comparisons=[path]), "comparisons").report
    assert (report.num_kept, report.num_bad, report.left_out.total()) == (40, 0, 1)
