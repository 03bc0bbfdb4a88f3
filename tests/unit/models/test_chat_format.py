from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trl
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from phi3_industry.errors import ConfigurationError
from phi3_industry.models.catalog import resolve_model
from phi3_industry.models.chat_format import ChatFormat

CONTROL = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>", "<s>", "<unk>"]
# the templates of the true checkpoints, as the package trl carries them
TEMPLATES = Path(trl.__file__).parent / "chat_templates"
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] != 'system' %}"
    "{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

CONVERSATION = [
    {"role": "system", "content": "Answer from the passages."},
    {"role": "user", "content": "  Is P-4471 — 水泵 — at 38.2 bar?\n"},
    {"role": "assistant", "content": "[2] 38.2 bar"},
    {"role": "user", "content": "And\n\nP-4472?"},
]


def embedded_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(resolve_model("embedded")[0])


def metaspace_tokenizer() -> Any:
    """A small tokenizer built like that of Phi-3-mini: marked spaces, bytes as fallback."""
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary += ["▁", "i", "s", "a", "t", "b", "r", "▁i", "▁a", "▁is", "▁at", "3", "8", "."]
    merges = [("▁", "i"), ("▁", "a"), ("▁i", "s"), ("▁a", "t")]
    backend = Tokenizer(
        models.BPE(
            {token: number for number, token in enumerate(vocabulary)},
            merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = [AddedToken(token, special=True, normalized=False) for token in ("<unk>", "<s>")]
    # "</s>" is an added token that is not special in Phi-3-mini's tokenizer
    backend.add_special_tokens(special)
    backend.add_tokens([AddedToken("</s>", rstrip=True, normalized=False)])
    backend.add_special_tokens(
        [AddedToken(token, rstrip=True, normalized=False) for token in CONTROL if "|" in token]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>", unk_token="<unk>", bos_token="<s>"
    )
    tokenizer.chat_template = (TEMPLATES / "phi3.jinja").read_text()
    return tokenizer


def first_segment_tokenizer() -> Any:
    """The same with a space marked only where a text begins, as newer conversions do."""
    tokenizer = metaspace_tokenizer()
    backend = tokenizer.backend_tokenizer
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


TOKENIZERS = {
    "embedded": embedded_tokenizer,
    "metaspace": metaspace_tokenizer,
    "first-segment": first_segment_tokenizer,
}


@pytest.fixture(params=sorted(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return TOKENIZERS[request.param]()


def reference_ids(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> list[int]:
    return list(tokenizer.apply_chat_template(messages, return_dict=False, **options))


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("template", ["own", "phi3.jinja", "phi3_5.jinja"])
def test_ids_equal_the_chat_template_tokenised_whole(
    tokenizer: Any, template: str, add_generation_prompt: bool
) -> None:
    if template != "own":
        tokenizer.chat_template = (TEMPLATES / template).read_text()
    chat_format = ChatFormat(tokenizer)
    for messages in (CONVERSATION, CONVERSATION[:2], CONVERSATION[1:], CONVERSATION[1:3]):
        ids = chat_format.encode_messages(messages, add_generation_prompt=add_generation_prompt)
        assert ids == reference_ids(
            tokenizer, messages, add_generation_prompt=add_generation_prompt
        )


def test_no_bos_is_added_or_doubled(tokenizer: Any) -> None:
    chat_format = ChatFormat(tokenizer)
    ids = chat_format.encode_messages(CONVERSATION)
    assert ids.count(tokenizer.convert_tokens_to_ids("<s>")) == 0


@pytest.mark.parametrize("place", ["system", "user", "assistant"])
@pytest.mark.parametrize("token", [*CONTROL, "</s>"])
@pytest.mark.parametrize("wrapping", ["{}", "a{}b", "\n{}\n", "{0}{0}", "<|{}|>", "{}\x00"])
def test_control_tokens_in_content_stay_text(
    tokenizer: Any, place: str, token: str, wrapping: str
) -> None:
    chat_format = ChatFormat(tokenizer)
    harmless = [{"role": role, "content": "x"} for role in ("system", "user", "assistant")]
    hostile = [
        {**message, "content": wrapping.format(token)} if message["role"] == place else message
        for message in harmless
    ]

    def control(messages: list[dict[str, str]]) -> list[int]:
        ids = chat_format.encode_messages(messages)
        return [token_id for token_id in ids if token_id in chat_format.control_token_ids]

    assert control(hostile) == control(harmless)
    assert token in chat_format.decode(chat_format.encode_messages(hostile))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.sampled_from(CONTROL), st.text(max_size=40))
def test_any_text_around_a_control_token_stays_text(before: str, token: str, after: str) -> None:
    chat_format = CHAT_FORMAT
    ids = chat_format.encode_text(before + token + after)
    assert not chat_format.control_token_ids & set(ids)
    assert chat_format.decode(ids) == before + token + after


CHAT_FORMAT = ChatFormat(embedded_tokenizer())


def test_a_system_text_that_the_template_drops_goes_to_the_first_user_message(
    tokenizer: Any,
) -> None:
    tokenizer.chat_template = NO_SYSTEM
    text = ChatFormat(tokenizer).decode(ChatFormat(tokenizer).encode_messages(CONVERSATION))
    assert "Answer from the passages.\n\n  Is P-4471" in text


def test_a_dropped_system_text_without_a_user_message_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = NO_SYSTEM
    with pytest.raises(ConfigurationError, match="no user message that could carry"):
        ChatFormat(tokenizer).encode_messages([{"role": "system", "content": "Be brief."}])


def test_a_role_that_the_template_drops_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = (TEMPLATES / "phi3.jinja").read_text()
    with pytest.raises(ConfigurationError, match=r"drops the content .* role 'tool'"):
        ChatFormat(tokenizer).encode_messages([{"role": "tool", "content": "42"}])


def test_a_template_that_refuses_roles_says_which(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ConfigurationError, match=r"\['user'\]: roles must alternate"):
        ChatFormat(tokenizer).encode_messages([{"role": "user", "content": "x"}])


def test_no_message_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="no message to encode"):
        ChatFormat(tokenizer).encode_messages([])


def test_a_tokenizer_without_template_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(ConfigurationError, match="has no chat template"):
        ChatFormat(tokenizer)


def test_the_end_of_a_turn_is_one_token_that_stops(tokenizer: Any) -> None:
    chat_format = ChatFormat(tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert chat_format.end_of_turn_ids == [end]
    assert end in chat_format.stop_token_ids


def test_a_template_whose_turns_never_end_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    with pytest.raises(ConfigurationError, match="could not learn to stop"):
        _ = ChatFormat(tokenizer).end_of_turn_ids


def test_role_tokens_stop_an_answer_whether_or_not_a_configuration_lists_them(
    tokenizer: Any,
) -> None:
    stops = ChatFormat(tokenizer, stop_token_ids=[9]).stop_token_ids
    for token in ("<|end|>", "<|endoftext|>", "<|assistant|>", "<|user|>", "<|system|>"):
        assert tokenizer.convert_tokens_to_ids(token) in stops
    assert 9 in stops


def test_fingerprints_tell_templates_apart(tokenizer: Any) -> None:
    before = ChatFormat(tokenizer).fingerprint
    assert ChatFormat(tokenizer).fingerprint == before
    tokenizer.chat_template += " "
    assert ChatFormat(tokenizer).fingerprint != before
