"""One rendering for all stages: prompt and response concatenate to the conversation."""

from datetime import datetime

import pytest

from rlhf_cli.data.records import DataError, Message, RowError
from rlhf_cli.data.template_texts import BUILT_IN
from rlhf_cli.data.templates import build
from tests.support import chat_templates
from tests.support.chat_templates import KNOWN

USER, BOT = Message("user", "Where is Paris?"), Message("assistant", "In France.")
SECOND_QUESTION, SECOND_ANSWER = Message("user", "And Rome?"), Message("assistant", "In Italy.")
DIALOGUE = (USER, BOT, SECOND_QUESTION, SECOND_ANSWER)
EVERY = [*BUILT_IN, *KNOWN]


# every template with single bytes and with a real tokenizer that adds a prefix space;
# the large real one, whose only special token is bos, eos and unk at once, with a few
CASES = [(kind, name) for kind in ("bytes", "stories") for name in EVERY]
CASES += [("gpt2", name) for name in ("plain", "chatml", "alpaca")]


def renderer(tokenizer, name="plain", system=None, **settings):
    if name not in KNOWN:
        return build(tokenizer, template=name, system=system, **settings)
    text, tokens, _ = KNOWN[name]
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    tokenizer.chat_template = text
    return build(tokenizer, template="auto", system=system, **settings)


@pytest.fixture(scope="module")
def built():
    """Return a cache of renderers by (tokenizer, template); no test changes one."""
    return {}


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def case(request, built, make_tokenizer):
    """Return (renderer, template name) of every case."""
    kind, name = request.param
    if (kind, name) not in built:
        special = {"bos_token": "<s>", "eos_token": "</s>"}
        fresh = make_tokenizer(**special) if kind == "bytes" else request.getfixturevalue(kind)
        built[kind, name] = renderer(fresh, name, also_stop=(5,))
    return built[kind, name], name


def text_of(r, ids):
    return r.tokenizer.decode(ids, skip_special_tokens=False)


def test_prompt_and_response_concatenate_to_the_conversation(case):
    r, _ = case
    for turns in (DIALOGUE[:2], DIALOGUE):
        ids, mask = r.conversation(turns)
        prompt, response = r.prompt_ids(turns[:-1]), r.response_ids(turns[-1].content)
        assert prompt + response == ids
        assert len(mask) == len(ids)
        assert mask[-len(response) :] == [True] * len(response)
        assert prompt


def test_every_answer_ends_with_one_supervised_end_token(case):
    r, _ = case
    ids, mask = r.conversation(DIALOGUE[:2])
    learned = [token for token, supervised in zip(ids, mask, strict=True) if supervised]
    assert learned[-1] == ids[-1] == r.end_id
    assert r.end_id in r.end_ids
    assert not set(learned[:-1]) & set(r.end_ids)


def test_the_pad_token_is_never_an_end_token(case):
    r, _ = case
    assert r.pad_id not in r.end_ids
    assert r.pad_id == r.tokenizer.pad_token_id
    assert r.pad_id not in r.conversation(DIALOGUE)[0]
    assert r.num_tokens > max(r.pad_id, *r.end_ids)


def test_decode_response_inverts_response_ids(case):
    r, _ = case
    for text in ("In France.", "1 + 1 = 2", "two\nlines\n\n- and more", "naïve 你好"):
        ids = r.response_ids(text)
        assert r.decode_response(ids) == text
        assert r.decode_response([*ids, r.pad_id, r.pad_id]) == text
        assert r.decode_response(ids[:-1]) == text


REWRITING = ("qwen3", "qwen3_thinking", "no_thinking", "end_last", "no_prompt")


def test_every_assistant_turn_is_supervised_with_its_end_and_nothing_else(case):
    r, name = case
    ids, mask = r.conversation(DIALOGUE)
    learned = [token for token, supervised in zip(ids, mask, strict=True) if supervised]
    first = [] if name in REWRITING else r.response_ids("In France.")
    assert learned == first + r.response_ids("In Italy.")


def test_a_template_that_rewrites_earlier_answers_is_detected(case):
    r, name = case
    assert r.rewrites_history == (name in REWRITING)
    assert any("rewrites" in note for note in r.notes) == (name in REWRITING)


def test_a_conversation_equals_the_templates_text_up_to_its_last_end_token(case):
    """The reference is the rendering by the tokenizer, tokenised in one piece."""
    r, name = case
    if name == "no_prompt":
        pytest.skip("it writes no end token")
    whole = r.tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in DIALOGUE], tokenize=False
    )
    ids, _ = r.conversation(DIALOGUE)
    direct = r.tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert ids == direct[: len(ids)]
    assert not text_of(r, direct[len(ids) :]).strip()


@pytest.mark.parametrize("name", KNOWN)
def test_the_end_token_is_that_of_the_template(make_tokenizer, name):
    r = renderer(make_tokenizer(bos_token="<s>", eos_token="</s>"), name)
    assert r.tokenizer.convert_ids_to_tokens(r.end_id) == KNOWN[name][2]
    assert r.tokenizer.eos_token_id in r.end_ids


def test_the_plain_template_gives_the_expected_text(plain_renderer):
    r = plain_renderer
    assert text_of(r, r.prompt_ids(DIALOGUE[:3])) == (
        "Human: Where is Paris?\n\nAssistant: In France.</s>\n\nHuman: And Rome?\n\nAssistant:"
    )
    assert text_of(r, r.response_ids("In Italy.")) == " In Italy.</s>"


@pytest.mark.parametrize(
    ("name", "prompt", "response"),
    [
        ("hh", "\n\nHuman: Where is Paris?\n\nAssistant:", " In France.</s>"),
        ("none", "Where is Paris?", " In France.</s>"),
        (
            "chatml",
            "<|im_start|>user\nWhere is Paris?<|im_end|>\n<|im_start|>assistant\n",
            "In France.<|im_end|>",
        ),
        (
            "alpaca",
            "Below is an instruction that describes a task. Write a response that appropriately "
            "completes the request.\n\n### Instruction:\nWhere is Paris?\n\n### Response:\n",
            "In France.</s>",
        ),
        (
            "qwen3",
            "<|im_start|>user\nWhere is Paris?<|im_end|>\n<|im_start|>assistant\n",
            "<think>\n\n</think>\n\nIn France.<|im_end|>",
        ),
        (
            "qwen3_thinking",
            "<|im_start|>user\nWhere is Paris?<|im_end|>\n<|im_start|>assistant\n<think>\n",
            "\n</think>\n\nIn France.<|im_end|>",
        ),
        ("v3.1", "<s><|User|>Where is Paris?<|Assistant|></think>", "In France.</s>"),
        ("llama2", "<s>[INST] Where is Paris? [/INST]", " In France. </s>"),
        ("zephyr", "<|user|>\nWhere is Paris?</s><|assistant|>\n", "In France.</s>"),
        ("no_prompt", "[user] Where is Paris?\n[assistant]", " In France.</s>"),
    ],
)
def test_templates_give_the_expected_texts(make_tokenizer, name, prompt, response):
    r = renderer(make_tokenizer(bos_token="<s>", eos_token="</s>"), name)
    assert text_of(r, r.response_ids("In France.")) == response
    assert text_of(r, r.prompt_ids((USER,))) == prompt


THOUGHTFUL = Message("assistant", "<think>\nadd them\n</think>\n\n4")
SUM = Message("user", "2 + 2?")


@pytest.mark.parametrize("name", ["qwen3", "qwen3_thinking", "smollm3", "llama3"])
@pytest.mark.parametrize("answer", [BOT, THOUGHTFUL, Message("assistant", "<think>add</think>4")])
def test_answers_with_or_without_a_thought_equal_the_templates_tokens(make_tokenizer, name, answer):
    """This holds after one question and after an earlier answer with a thought."""
    r = renderer(make_tokenizer(bos_token="<s>", eos_token="</s>"), name)
    for turns in ((SUM, answer), (USER, THOUGHTFUL, SUM, answer)):
        whole = r.tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in turns], return_dict=False
        )
        ids, mask = r.conversation(turns)
        response = r.response_ids(answer.content)
        assert ids == whole[: len(ids)]
        assert text_of(r, whole[len(ids) :]) in ("", "\n")
        assert ids == r.prompt_ids(turns[:-1]) + response
        assert mask[-len(response) :] == [True] * len(response)
        assert r.difference(turns) is None
        prompt = r.tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in turns[:-1]],
            add_generation_prompt=True,
            return_dict=False,
        )
        assert r.prompt_ids(turns[:-1]) == prompt


@pytest.mark.parametrize("name", ["qwen3", "qwen3_thinking"])
def test_decode_response_keeps_a_thought_unless_it_is_empty(make_tokenizer, name):
    r = renderer(make_tokenizer(eos_token="</s>"), name)
    assert r.decode_response(r.response_ids(THOUGHTFUL.content)) == THOUGHTFUL.content
    assert r.decode_response(r.response_ids("4")) == "4"
    plain = renderer(make_tokenizer(eos_token="</s>"), "chatml")
    empty = "<think>\n\n</think>\n\n4"
    assert plain.decode_response(plain.response_ids(empty)) == empty


def test_a_generation_prompt_that_differs_from_the_conversation_is_refused(make_tokenizer):
    tokenizer = make_tokenizer(bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = chat_templates.R1
    expected = r"'.*<think>.*' became '.*walrus.*'.*set data.template=chatml, or a .jinja file"
    with pytest.raises(DataError, match=expected):
        build(tokenizer, template="auto", system=None)
    assert build(tokenizer, template="chatml", system=None).difference((SUM, THOUGHTFUL)) is None


def test_a_thought_after_a_closed_think_tag_is_a_bad_row(make_tokenizer):
    r = renderer(make_tokenizer(eos_token="</s>"), "no_thinking")
    assert text_of(r, r.response_ids("4")) == "4<|im_end|>"
    with pytest.raises(RowError, match="does not show the response after its generation prompt"):
        r.conversation((SUM, THOUGHTFUL))


def test_difference_names_what_the_template_changes(make_tokenizer):
    r = renderer(make_tokenizer(bos_token="<s>", eos_token="</s>"), "v3.1")
    assert r.difference((SUM, BOT)) is None
    what, detail = r.difference((SUM, THOUGHTFUL))
    assert what == "the chat template does not show all of a response"
    assert "add them" in detail
    tokenizer = make_tokenizer(eos_token="</s>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ':' }}"
        "{{ (m.content if loop.last else m.content.replace('?', '')) + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    r = build(tokenizer, template="auto", system=None)
    what, detail = r.difference((SUM, BOT))
    assert what == "the chat template's own text differs before the response"
    assert detail == (
        "'user:2 + 2?</s>assistant:In France.</s>' became 'user:2 + 2</s>assistant:In France.</s>'"
    )


@pytest.mark.parametrize("name", ["qwen3", "chatml", "llama3.2", "gemma"])
def test_a_tokenizer_with_a_prefix_space_adds_none_to_an_answer(make_tokenizer, name):
    from tokenizers import pre_tokenizers

    tokenizer = make_tokenizer(bos_token="<s>", eos_token="</s>")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=True, use_regex=False
    )
    r = renderer(tokenizer, name)
    for answer in (BOT, THOUGHTFUL):
        ids, _ = r.conversation((SUM, answer))
        whole = r.tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in (SUM, answer)], return_dict=False
        )
        assert ids == whole[: len(ids)]


def test_a_mode_set_by_the_system_text_is_applied(make_tokenizer):
    r = renderer(make_tokenizer(eos_token="</s>"), "smollm3", system="/no_think")
    assert text_of(r, r.prompt_ids((SUM,))).endswith("assistant\n<think>\n\n</think>\n")
    assert r.difference((SUM, BOT)) is None


@pytest.mark.parametrize("name", ["llama3.2", "smollm3"])
def test_a_template_with_a_date_prints_that_of_the_run(make_tokenizer, name, tmp_path):
    """This holds for the renderer and for a tokenizer that transformers loads on another day."""
    from transformers import AutoTokenizer

    special = {"bos_token": "<s>", "eos_token": "</s>"}
    r = renderer(make_tokenizer(**special), name, date="2001-02-03")
    day = "03 Feb 2001" if name == "llama3.2" else "03 February 2001"
    assert f"Today Date: {day}\n" in text_of(r, r.prompt_ids((SUM,)))
    assert any("prints today's date" in note for note in r.notes)
    r.tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    message = [{"role": "user", "content": SUM.content}]
    plain = loaded.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    assert plain == r.prompt_ids((SUM,))
    later = build(loaded, template="auto", system=None, date="2001-02-04")
    assert later.prompt_ids((SUM,)) == plain
    assert later.hash == r.hash
    assert renderer(make_tokenizer(**special), name, date="2001-02-04").hash != r.hash


def test_a_template_prints_the_current_date_without_a_date_of_the_run(make_tokenizer):
    r = renderer(make_tokenizer(bos_token="<s>", eos_token="</s>"), "llama3.2")
    assert f"Today Date: {datetime.now():%d %b %Y}" in text_of(r, r.prompt_ids((SUM,)))


@pytest.mark.parametrize(
    "call", ["{{ strftime_now(messages[0].role) }}", "{% set f = strftime_now %}"]
)
def test_a_date_that_cannot_be_fixed_is_refused(make_tokenizer, call, tmp_path):
    path = tmp_path / "dated.jinja"
    path.write_text(call + "{# strftime_now(x) in a comment is nothing #}" + chat_templates.ZEPHYR)
    with pytest.raises(DataError, match=r"today's date .* give data.template a .jinja file"):
        build(make_tokenizer(eos_token="</s>"), template=str(path), system=None)
    path.write_text("{# strftime_now(x) in a comment is nothing #}" + chat_templates.ZEPHYR)
    build(make_tokenizer(eos_token="</s>"), template=str(path), system=None)


def test_raw_text_is_supervised_completely_between_bos_and_eos(case):
    r, _ = case
    ids, mask = r.conversation((Message("text", "Once upon a time"),))
    assert all(mask)
    assert ids[-1] == r.eos_id
    assert ids[: len(r.bos_ids)] == r.bos_ids
    again, _ = r.conversation((Message("text", text_of(r, ids)),))
    assert again.count(r.eos_id) == ids.count(r.eos_id)  # marks in the text are not repeated


def test_bos_comes_first_only_where_the_tokenizer_adds_one(stories, gpt2):
    assert renderer(stories).prompt_ids((USER,))[:1] == [1]
    assert 50256 not in renderer(gpt2).prompt_ids((USER,))


def test_the_stories_tokenizer_pads_with_unk_and_stops_at_the_given_ids(stories):
    r = renderer(stories, also_stop=(1, 2))
    assert (r.pad_id, r.end_id, r.end_ids) == (0, 2, [2, 1])
    assert r.added_tokens == ()
    assert r.num_tokens == 512
    ids = r.response_ids("The end.")
    assert r.decode_response([*ids[:-1], 1]) == "The end."


def test_additional_end_ids_are_kept_once(make_tokenizer):
    r = renderer(make_tokenizer(), also_stop=(5, 5))
    assert r.end_ids == [r.end_id, 5]


def test_gpt2_gets_a_new_pad_token(gpt2):
    r = renderer(gpt2)
    assert (r.pad_id, r.end_id, r.end_ids) == (50257, 50256, [50256])
    assert r.added_tokens == ("<|pad|>",)
    assert r.num_tokens == 50258


def test_a_pad_token_equal_to_eos_is_replaced(make_tokenizer):
    r = renderer(make_tokenizer(eos_token="</s>", pad_token="</s>"))
    assert r.pad_id not in r.end_ids
    r = renderer(make_tokenizer(eos_token="</s>", pad_token="<pad>"))
    assert r.tokenizer.pad_token == "<pad>"
    assert r.added_tokens == ()


def test_a_tokenizer_without_eos_gets_a_new_one(make_tokenizer):
    r = renderer(make_tokenizer())
    assert r.tokenizer.eos_token == "<|end|>"
    assert r.added_tokens == ("<|end|>", "<|pad|>")
    assert r.response_ids("a")[-1] == r.tokenizer.convert_tokens_to_ids("<|end|>")


def test_the_chatml_template_adds_its_control_tokens(make_tokenizer):
    r = renderer(make_tokenizer(eos_token="</s>"), "chatml")
    assert r.added_tokens == ("<|im_start|>", "<|im_end|>", "<|pad|>")
    assert len(r.response_ids("a")) == 2


def test_data_system_applies_to_rows_without_a_system_text(make_tokenizer):
    r = renderer(make_tokenizer(eos_token="</s>"), "plain", system="Be kind.")
    assert text_of(r, r.prompt_ids((USER,))).startswith("System: Be kind.\n\nHuman:")
    own = (Message("system", "Be brief."), USER)
    assert text_of(r, r.prompt_ids(own)).startswith("System: Be brief.\n\nHuman:")


def test_a_template_without_a_system_role_shows_it_in_the_first_turn(make_tokenizer):
    r = renderer(make_tokenizer(bos_token="<s>", eos_token="</s>"), "gemma", system="Be kind.")
    assert "user\nBe kind.\n\nWhere is Paris?<end_of_turn>" in text_of(r, r.prompt_ids((USER,)))
    assert any("no system role" in note for note in r.notes)


TOOLS = (
    USER,
    Message("assistant", '{"name": "map"}'),
    Message("tool", "48N 2E"),
    Message("assistant", "In France."),
)


@pytest.mark.parametrize("name", EVERY)
def test_the_text_of_a_tool_turn_is_always_shown(make_tokenizer, name):
    r = renderer(make_tokenizer(bos_token="<s>", eos_token="</s>"), name)
    ids, _ = r.conversation(TOOLS)
    assert "48N 2E" in text_of(r, ids)
    noted = any("no tool role" in note for note in r.notes)
    assert noted == (name in ("gemma", "llama2", "zephyr", "v3.1"))


def test_turns_with_weight_zero_are_not_supervised(plain_renderer):
    unsupervised = Message("assistant", "In France.", supervised=False)
    ids, mask = plain_renderer.conversation((USER, unsupervised, SECOND_QUESTION, SECOND_ANSWER))
    assert sum(mask) == len(plain_renderer.response_ids("In Italy."))
    assert ids == plain_renderer.conversation(DIALOGUE)[0]


def test_a_conversation_that_the_template_refuses_is_a_bad_row(make_tokenizer):
    r = renderer(make_tokenizer(bos_token="<s>", eos_token="</s>"), "llama2")
    with pytest.raises(RowError, match="must alternate"):
        r.conversation((USER, SECOND_QUESTION, BOT))
    with pytest.raises(RowError, match="no assistant turn"):
        r.conversation((USER,))


def test_a_template_file_becomes_the_template_of_the_tokenizer(make_tokenizer, tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text(chat_templates.ZEPHYR)
    r = build(make_tokenizer(eos_token="</s>"), template=str(path), system=None)
    assert r.tokenizer.chat_template == chat_templates.ZEPHYR


def test_a_named_template_overrides_that_of_the_tokenizer(make_tokenizer):
    own = make_tokenizer(eos_token="</s>", chat_template=chat_templates.ZEPHYR)
    assert build(own, template="auto", system=None).tokenizer.chat_template == chat_templates.ZEPHYR
    plain = build(make_tokenizer(eos_token="</s>"), template="plain", system=None)
    own = make_tokenizer(eos_token="</s>", chat_template=chat_templates.ZEPHYR)
    assert build(own, template="plain", system=None).template == plain.template


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plian", "neither auto, one of plain, hh, chatml, alpaca, none, nor an existing"),
        ("{{", "neither auto"),
    ],
)
def test_an_unknown_template_is_refused(make_tokenizer, template, expected):
    with pytest.raises(DataError, match=expected):
        build(make_tokenizer(eos_token="</s>"), template=template, system=None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{% for m in messages %}", "cannot render a question"),
        ("{{ messages[0]['content'] }}", "leaves out the assistant's turns"),
    ],
)
def test_an_invalid_template_file_is_refused(make_tokenizer, tmp_path, text, expected):
    path = tmp_path / "broken.jinja"
    path.write_text(text)
    with pytest.raises(DataError, match=expected):
        build(make_tokenizer(eos_token="</s>"), template=str(path), system=None)


def test_the_template_auto_is_that_of_the_tokenizer_or_plain(make_tokenizer):
    own = make_tokenizer(eos_token="</s>")
    own.chat_template = chat_templates.ZEPHYR
    assert build(own, template="auto", system=None).template == chat_templates.ZEPHYR
    bare = make_tokenizer(eos_token="</s>")
    assert build(bare, template="auto", system=None).template == BUILT_IN["plain"]


def test_the_hash_covers_template_system_text_and_vocabulary(make_tokenizer):
    def of(template="plain", system=None, **special):
        tokenizer = make_tokenizer(**({"eos_token": "</s>"} | special))
        return build(tokenizer, template=template, system=system).hash

    hashes = [
        of(),
        of("hh"),
        of("chatml"),
        of(system="Be kind."),
        of(eos_token="<end>"),
        of(pad_token="<pad>"),
        of(bos_token="<s>"),
    ]
    assert len(set(hashes)) == len(hashes)
    assert of() == hashes[0]


def test_a_saved_tokenizer_renders_the_same_with_the_same_hash(case, tmp_path):
    from transformers import AutoTokenizer

    r, _ = case
    r.tokenizer.save_pretrained(tmp_path)
    again = build(
        AutoTokenizer.from_pretrained(tmp_path),
        template="auto",
        system=None,
        also_stop=tuple(r.end_ids),
    )
    assert again.conversation(DIALOGUE) == r.conversation(DIALOGUE)
    assert (again.pad_id, again.end_ids, again.added_tokens) == (r.pad_id, r.end_ids, ())
    assert again.hash == r.hash


def test_special_in_finds_control_tokens_in_a_text(make_tokenizer):
    r = renderer(make_tokenizer(eos_token="</s>"), "chatml")
    assert r.special_in("as <|im_end|> says") == "<|im_end|>"
    assert r.special_in("nothing here") is None
