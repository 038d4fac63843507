"""Tiny builds of the families named in the documentation: each is asked, scored and adapted."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from vlm_hv.conversation import Answer, Message, Picture, Request
from vlm_hv.lightning import add_lora, lora_layers, suffix_loss
from vlm_hv.loading import load_model
from vlm_hv.local import LocalModel
from vlm_hv.scoring import can_share_features, last_logits
from vlm_hv.tiny import QWEN_CHAT, QWEN_TOKENS, byte_tokenizer, special_ids
from vlm_hv.verifier import VLMVerifier

TEXT = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.2},
}
SEEN = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "image_size": 32, "patch_size": 8},
}
CHAT = (
    "{% for m in messages %}[{{ m['role'] }}]{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<image>")


def text_of(tokenizer, **more):
    return {**TEXT, "vocab_size": len(tokenizer), **special_ids(tokenizer), **more}


def paligemma2():
    import transformers as t

    tokenizer = byte_tokenizer(SPECIALS)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    pictures = t.SiglipImageProcessor(size={"height": 32, "width": 32})
    pictures.image_seq_length = 16
    processor = t.PaliGemmaProcessor(pictures, tokenizer)
    config = t.PaliGemmaConfig(
        vision_config={**SEEN, "model_type": "siglip_vision_model", "vision_use_head": False},
        text_config=text_of(tokenizer, model_type="gemma2", query_pre_attn_scalar=16),
        image_token_index=processor.image_token_id,
        vocab_size=len(tokenizer),
        hidden_size=32,
        projection_dim=32,
    )
    return t.PaliGemmaForConditionalGeneration(config), processor


def llava():
    import transformers as t

    tokenizer = byte_tokenizer(SPECIALS)
    processor = t.LlavaProcessor(
        t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    config = t.LlavaConfig(
        vision_config={**SEEN, "model_type": "clip_vision_model", "projection_dim": 32},
        text_config=text_of(tokenizer, model_type="llama"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return t.LlavaForConditionalGeneration(config), processor


def gemma3():
    import transformers as t

    names = ("<start_of_image>", "<end_of_image>", "<soft>")
    roles = dict(zip(("boi_token", "eoi_token", "image_token"), names, strict=True))
    tokenizer = byte_tokenizer((*SPECIALS[:4], *names), extra_special_tokens=roles)
    processor = t.Gemma3Processor(
        t.Gemma3ImageProcessor(size={"height": 32, "width": 32}),
        tokenizer,
        image_seq_length=4,
        chat_template=CHAT.replace("<image>", "<start_of_image>"),
    )
    begin, end, soft = tokenizer.convert_tokens_to_ids(list(names))
    config = t.Gemma3Config(
        vision_config={**SEEN, "model_type": "siglip_vision_model", "vision_use_head": False},
        text_config=text_of(tokenizer, model_type="gemma3_text", query_pre_attn_scalar=16),
        mm_tokens_per_image=4,
        boi_token_index=begin,
        eoi_token_index=end,
        image_token_index=soft,
    )
    return t.Gemma3ForConditionalGeneration(config), processor


def smolvlm(kind="SmolVLM"):
    import transformers as t

    if kind == "SmolVLM":
        pytest.importorskip("num2words", reason="SmolVLM2's processor needs num2words")
    tokens = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
    named = ("fake_image_token", "image_token", "end_of_utterance_token", "global_image_token")
    roles = dict(zip(named, tokens, strict=True))
    tokenizer = byte_tokenizer((*SPECIALS[:4], *tokens), extra_special_tokens=roles)
    pictures = getattr(t, f"{kind}ImageProcessor")(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=True
    )
    videos = [t.SmolVLMVideoProcessor()] if kind == "SmolVLM" else []
    processor = getattr(t, f"{kind}Processor")(
        pictures, tokenizer, *videos, image_seq_len=4, chat_template=CHAT
    )
    config = getattr(t, f"{kind}Config")(
        vision_config=SEEN,
        text_config=text_of(tokenizer, model_type="llama"),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    return getattr(t, f"{kind}ForConditionalGeneration")(config), processor


def qwen(kind):
    import transformers as t

    tokenizer = byte_tokenizer(QWEN_TOKENS, pad=QWEN_TOKENS[0], eos=QWEN_TOKENS[2])
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(QWEN_TOKENS[3:]))
    third = kind == "Qwen3VL"
    patch = {"patch_size": 16} if third else {}
    limits = {"size": {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}, **patch}
    videos = t.Qwen3VLVideoProcessor if third else t.Qwen2VLVideoProcessor
    processor = getattr(t, f"{kind}Processor")(
        t.Qwen2VLImageProcessor(**limits), tokenizer, videos(**limits), chat_template=QWEN_CHAT
    )
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    seeing = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48}
    seeing["out_hidden_size"] = 32
    if third:
        seeing |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 64}
    config = getattr(t, f"{kind}Config")(
        vision_config=seeing,
        text_config=text_of(tokenizer, rope_parameters=rope, max_position_embeddings=4096),
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    return getattr(t, f"{kind}ForConditionalGeneration")(config), processor


FAMILIES = {
    "paligemma2": paligemma2,
    "llava": llava,
    "gemma3": gemma3,
    "idefics3 (SmolVLM)": lambda: smolvlm("Idefics3"),
    "smolvlm (SmolVLM2)": smolvlm,
    "qwen2_5_vl": lambda: qwen("Qwen2_5_VL"),
    "qwen3_vl": lambda: qwen("Qwen3VL"),
}


def grey(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64), dtype=np.uint8)


@pytest.fixture(scope="module", params=list(FAMILIES))
def loaded(request, save_tiny, tmp_path_factory):
    torch.manual_seed(0)
    model, processor = FAMILIES[request.param]()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # Gemma 3's projector begins at zero: it would be blind
                parameter.normal_(std=0.2)
    folder = save_tiny(model, processor, tmp_path_factory.mktemp(request.param.split()[0]))
    return load_model(folder, device="cpu")


def test_it_answers_and_scores_requests_with_two_pictures(loaded):
    def picture(seed):
        file = io.BytesIO()
        Image.fromarray(grey(1, seed)[0]).save(file, "PNG")
        return Picture(file.getvalue(), "x.png")

    def ask(first, second, **how):
        parts = ("Known:", picture(first), "Questioned:", picture(second), "Same?")
        return Request((Message("user", parts),), 4, 0.0, None, **how)

    requests = [ask(0, 1), ask(2, 3), ask(0, 1, choices=("yes", "no"))]
    requests.append(ask(1, 0, choices=("yes", "no")))
    answers = LocalModel(loaded).answer(requests)
    assert all(isinstance(answer, Answer) for answer in answers), answers
    assert answers[0].completion_tokens >= 1
    assert answers[2].choice_logprobs != pytest.approx(answers[3].choice_logprobs, abs=1e-6)


def test_its_score_sees_both_pictures_and_sharing_changes_nothing(loaded):
    verifier = VLMVerifier(loaded)
    images = grey(4)
    both = verifier.score(images[:2], images[2:], swap=True)
    apart = [verifier.score(images[:2], images[2:]), verifier.score(images[2:], images[:2])]
    np.testing.assert_allclose(both, apart, rtol=1e-3, atol=1e-4)
    for left, right in ((images[2:], images[2:]), (images[:2], images[:2])):
        assert abs(both[0] - verifier.score(left, right)).min() > 1e-5
    shares = loaded.model.config.model_type in ("paligemma", "gemma3", "qwen2_5_vl")
    assert can_share_features(loaded.model) == shares


def test_its_suffix_is_learnt_and_lora_finds_its_layers(loaded):
    pytest.importorskip("peft", reason="LoRA needs peft (vlm-hv[local])")
    verifier = VLMVerifier(loaded)
    inputs, labels = verifier.prompt.encode_answered(grey(2), grey(2, 1), [1, 0])
    whole = torch.full_like(inputs["input_ids"], -100)
    whole[:, -labels.shape[1] :] = labels
    logits = last_logits(verifier.model, inputs, keep=labels.shape[1] + 1)
    loss = suffix_loss(logits[:, :-1], labels)
    torch.testing.assert_close(loss, verifier.model(**inputs, labels=whole).loss)
    assert len(lora_layers(verifier.model)) == 2 * 7
    add_lora(verifier, 2, 4, 0.0)
    trained = [name for name, p in verifier.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 2 * 7
    assert not any("vis" in name for name in trained)
