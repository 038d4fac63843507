"""Tiny real models, built in code without downloads: PaliGemma and Qwen2-VL, random weights.

They have every part of the large ones (vision tower, projector, language model, tokenizer, image
processor, chat template) at widths that a laptop trains in a minute. `tiny_paligemma` learns pairs;
`tiny_qwen2_vl` speaks random text and stands for any chat model at a server.
"""

from __future__ import annotations

from typing import Any

import torch

TEXTS = (
    "answer en same writer?\nyes",
    "answer en same writer?\nno",
    "Known sample: Questioned sample: Did the same person write both? Answer yes or no. Yes No",
    "You are a forensic document examiner. Explanation, decision, slant, spacing, pressure.",
)
QWEN_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_paligemma(
    *,
    size: int = 64,
    patch_size: int = 8,
    width: int = 64,
    layers: int = 2,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Return a PaliGemma with random weights, and its processor.

    Args:
        size: side in pixels to which pictures are resized, a multiple of `patch_size`.
        patch_size: side of a patch; a picture becomes (size / patch_size)^2 tokens.
        width: of both transformers, a multiple of 16.
        layers: of either transformer, >= 1.
        seed: of the weights.

    Returns:
        model (float32, CPU, evaluation mode) and processor; 254,000 parameters as it comes.

    Raises:
        ValueError: sizes that do not divide.
    """
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    if width % 16 or size % patch_size or min(width, size, layers) < 1:
        raise ValueError(
            "width must be a multiple of 16 and size of patch_size, layers >= 1, got "
            f"{width}, {size} of {patch_size}, {layers}"
        )
    tokenizer = byte_tokenizer(("<pad>", "<eos>", "<bos>", "<unk>", "<image>"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    square = {"height": size, "width": size}
    pictures: Any = SiglipImageProcessor(size=square)
    pictures.image_seq_length = (size // patch_size) ** 2
    processor = PaliGemmaProcessor(pictures, tokenizer)
    vocabulary = len(tokenizer)  # with the 1,152 tokens of places and segments
    attention = {"num_hidden_layers": layers, "num_attention_heads": width // 16}
    config = PaliGemmaConfig(
        vision_config={
            **{"model_type": "siglip_vision_model", "vision_use_head": False, **attention},
            **{"image_size": size, "patch_size": patch_size},
            **{"hidden_size": width, "intermediate_size": 2 * width},
        },
        text_config={
            **{"model_type": "gemma", "num_key_value_heads": 1, "head_dim": 16, **attention},
            **{"hidden_size": width, "intermediate_size": 2 * width, "vocab_size": vocabulary},
            **{"initializer_range": width**-0.5},  # the usual 0.02 is for widths of thousands
            **special_ids(tokenizer),
        },
        image_token_index=processor.image_token_id,
        vocab_size=vocabulary,
        hidden_size=width,
        projection_dim=width,
        **special_ids(tokenizer),
    )
    return seeded(PaliGemmaForConditionalGeneration, config, seed), processor


def tiny_qwen2_vl(*, width: int = 64, layers: int = 2, seed: int = 0) -> tuple[Any, Any]:
    """Return a Qwen2-VL with random weights, and its processor with a chat template.

    Args:
        width: of the language model, a multiple of 16; the vision tower has half of it.
        layers: of either transformer, >= 1.
        seed: of the weights.

    Returns:
        model (float32, CPU, evaluation mode) and processor; pictures become 4 to 16 tokens each.

    Raises:
        ValueError: width is no multiple of 16, or layers < 1.
    """
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    if width % 16 or min(width, layers) < 1:
        raise ValueError(f"width must be a multiple of 16 and layers >= 1, got {width}, {layers}")
    tokenizer = byte_tokenizer(QWEN_TOKENS, pad=QWEN_TOKENS[0], eos=QWEN_TOKENS[2])
    limits = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=limits),
        tokenizer,
        Qwen2VLVideoProcessor(size=limits),
        chat_template=QWEN_CHAT,
    )
    ids = dict(zip(QWEN_TOKENS, tokenizer.convert_tokens_to_ids(list(QWEN_TOKENS)), strict=True))
    config = Qwen2VLConfig(
        text_config={
            **{"vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": 2 * width},
            **{"num_hidden_layers": layers, "num_attention_heads": width // 16},
            **{"num_key_value_heads": 1, "max_position_embeddings": 4096},
            **{"initializer_range": width**-0.5},
            "rope_parameters": {
                **{"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
            },
            **special_ids(tokenizer),
        },
        vision_config={
            **{"depth": layers, "embed_dim": width // 2, "hidden_size": width},
            **{"num_heads": width // 16, "mlp_ratio": 2, "patch_size": 14},
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        **special_ids(tokenizer),
    )
    return seeded(Qwen2VLForConditionalGeneration, config, seed), processor


def byte_tokenizer(
    specials: tuple[str, ...], pad: str = "<pad>", eos: str = "<eos>", **more: Any
) -> Any:
    """Return a byte-level BPE tokenizer with a few merges, learnt from `TEXTS`.

    Args:
        specials: its special tokens; <bos> and <unk> get their roles if they are among them.
        pad: one of them.
        eos: one of them.
        **more: for `transformers.PreTrainedTokenizerFast`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    named = {"bos_token": "<bos>", "unk_token": "<unk>"} if "<bos>" in specials else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        eos_token=eos,
        padding_side="left",
        **named,
        **more,
    )


def special_ids(tokenizer: Any) -> dict[str, Any]:
    """Return the ids of the pad, end and begin tokens, by the names configurations have."""
    names = ("pad_token_id", "eos_token_id", "bos_token_id")
    return {name: getattr(tokenizer, name) for name in names}


def seeded(kind: Any, config: Any, seed: int) -> Any:
    """Return a model with weights drawn from `seed`, which leaves torch's own generator alone.

    Args:
        kind: class of the model.
        config: its sizes.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(config).eval()
