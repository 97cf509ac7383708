"""A tiny random network of every causal type of transformers that can be made small.

Sizes are set by rule: every known field that the type's configuration has, in nested configurations
too. Where a configuration lists its layers, one of each kind is kept. OVERRIDES are the exceptions.
"""

import inspect

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCAB = 48
DROPOUT = 0.5  # of whatever is random in training: it must be possible to turn it off
RANDOM = ("dropout", "pdrop", "layerdrop", "jitter")
SPREAD = 0.3  # least standard deviation of the entries of a matrix: logits that differ clearly

_SIZES = {
    48: "vocab_size decoder_vocab_size vocab_size_per_layer_input ngram_vocab_size_base "
    "shape_vocab_size pronunciation_vocab_size",
    128: "max_position_embeddings n_positions n_ctx max_seq_len context_length rel_extent "
    "max_target_positions original_max_position_embeddings",
    32: "intermediate_size encoder_ffn_dim decoder_ffn_dim ffn_dim dff dim_ff d_inner n_inner "
    "feed_forward_size ffn_hidden_size mamba_d_ssm",
    24: "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size "
    "intermediate_size_mlp expert_ffn_hidden_size dense_intermediate_size "
    "moe_shared_expert_intermediate_size shared_experts_intermediate_size "
    "prefix_dense_intermediate_size",
    16: "hidden_size d_model n_embd emb_dim word_embed_proj_dim embedding_size embedding_dim "
    "input_embedding_size output_embedding_size hidden_size_per_layer_input lru_width "
    "attention_hidden_size kv_lora_rank q_lora_rank o_lora_rank hc_lowrank router_hidden_size "
    "pronunciation_embed_dim shape_embed_dim index_head_dim num_mel_bins "
    "prompt_mid_dim image_size block_multiple_of indexer_head_dim "
    "adapter_in_dim adapter_out_dim adapter_input_size downsample_hidden_size mm_embed_dim "
    "output_proj_dims mm_posemb_size index_n_heads",
    8: "head_dim kv_channels linear_key_head_dim linear_value_head_dim linear_head_dim "
    "mamba_d_state state_size ssm_state_size qk_rope_head_dim qk_nope_head_dim v_head_dim "
    "adapter_rank laurel_rank gated_norm_rank d_rel dim_head mamba_head_dim chunk_size "
    "mamba_chunk_size index_topk num_channels swa_head_dim attention_head_dim indexer_budget",
    6: "sliding_window sliding_window_size attention_window_size window_size local_attention "
    "attention_chunk_size",
    4: "num_experts n_routed_experts num_local_experts moe_num_experts rotary_dim "
    "num_attention_heads n_head n_heads num_heads encoder_attention_heads linear_num_value_heads "
    "decoder_attention_heads attention_heads num_decoder_attention_heads swa_num_attention_heads "
    "mamba_n_heads mamba_num_heads linear_num_heads num_encoder_attention_heads "
    "index_block_size indexer_n_heads",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers "
    "num_encoder_layers num_decoder_layers num_key_value_heads num_kv_heads num_experts_per_tok "
    "moe_topk moe_k swa_num_key_value_heads linear_num_key_heads n_mamba_heads num_blocks "
    "bos_token_id decoder_start_token_id top_k_experts index_topk_blocks zero_expert_num "
    "altup_num_inputs hc_mult hc_count num_random_blocks num_codebooks indexer_compress_ratio",
    1: "eos_token_id n_group topk_group n_shared_experts num_shared_experts "
    "mamba_n_groups mamba_ngroups n_groups first_k_dense_replace num_dense_layers "
    "moe_num_shared_experts moe_layer_start_index is_decoder causal indexer_kv_heads",
    0: "pad_token_id num_mtp_layers num_nextn_predict_layers num_kv_shared_layers "
    "is_encoder_decoder",
}
SIZES = {name: size for size, names in _SIZES.items() for name in names.split()}
SWITCHES = {"is_decoder", "causal", "is_encoder_decoder"}
KINDS = ("layer_types", "mlp_layer_types", "block_types", "layers_block_type", "indexer_types")
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
OVERRIDES: dict[str, dict] = {
    "bamba": {"attn_layer_indices": [1]},
    "cohere": {"logit_scale": 1.0},
    "cohere2": {"logit_scale": 1.0},
    "cohere2_moe": {"logit_scale": 1.0},
    "cohere_compass_text": {
        "logit_scale": 1.0,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": _ROPE, "full_attention": None},
    },
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0}},
    "diffllama": {"attention_dropout": 0.0},
    "dots3_note_text": {
        "num_key_value_heads": 4,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_qk_rope_head_dim": 8,
        "swa_v_head_dim": 8,
    },
    "gemma4_text": {"global_head_dim": 8},
    "gemma4_unified_text": {"global_head_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "helium": {"head_dim": 4},
    "inkling_text": {"logits_mup_width_multiplier": 1.0},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "qwen4_exp_text": {"ple_layer_ids": [1]},
    "reformer": {
        "axial_pos_embds": False,
        "attn_layers": ("local", "lsh"),
        "attention_head_size": 4,
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "num_buckets": 2,
        "hash_seed": 0,
    },
    "xlstm": {"hidden_size": 128, "embedding_dim": 128, "autocast_kernel_dtype": "float32"},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 32,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
    },
    "zaya": {"num_experts_per_tok": 1},
}
SKIPPED = {
    "blt": "reads bytes in patches that a second network cuts",
    "emu3": "transformers takes a part out of it that it cannot load again once that is saved",
    "gemma3n": "its image part needs the package timm (the text part is gemma3n_text)",
    "gemma4_assistant": "drafts from the hidden states of another model",
    "gemma4_unified_assistant": "drafts from the hidden states of another model",
    "mllama": "transformers takes a part out of it that it cannot load again once that is saved",
    "musicgen": "writes audio: several code books at a time",
    "musicgen_melody": "writes audio: several code books at a time",
    "phimoe": "draws experts at random in training, which no setting turns off",
}
TYPES = tuple(sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(SKIPPED)))


def tiny_config(model_type: str) -> PretrainedConfig:
    """Return the configuration of a few thousand weights."""
    return _tiny(CONFIG_MAPPING[model_type], OVERRIDES.get(model_type, {}))


def _tiny(kind: type[PretrainedConfig], overrides: dict) -> PretrainedConfig:
    fields = inspect.signature(kind.__init__).parameters
    sizes = {name: SIZES[name] for name in SIZES.keys() & fields.keys()}
    for name in SWITCHES & sizes.keys():
        sizes[name] = bool(sizes[name])
    for name in fields:
        if any(word in name for word in RANDOM) and "float" in str(fields[name].annotation):
            sizes[name] = DROPOUT
    if "kv_lora_rank" in sizes:  # latent attention has keys for every head
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    for name, nested in kind.sub_configs.items():
        nested = type(getattr(kind(), name)) if nested is AutoConfig else nested
        if issubclass(nested, PretrainedConfig):
            sizes[name] = _tiny(nested, OVERRIDES.get(nested.model_type, {}))
    return kind(**sizes | _layers(kind, fields) | overrides)


def _layers(kind: type[PretrainedConfig], fields) -> dict:
    """Return lists with one layer of each kind, two layers at least."""
    names = [name for name in KINDS if name in fields]
    default = kind() if names else None
    kinds = {name: list(dict.fromkeys(getattr(default, name) or ())) for name in names}
    kinds = {name: each for name, each in kinds.items() if each}
    if not kinds:
        return {}
    number = max(2, *map(len, kinds.values()))
    lists = {name: (each + each[-1:] * number)[:number] for name, each in kinds.items()}
    return {"num_hidden_layers": number} | lists


def tiny_causal_lm(model_type: str, seed: int = 0):
    """Return a random float32 model in evaluation mode whose predictions differ between tokens."""
    torch.manual_seed(seed)
    config = tiny_config(model_type)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                _sharpen(parameter)
    return model


def _sharpen(matrix: torch.Tensor) -> None:
    """Scale the matrix up, and fill zeros such as the embedding of the padding token."""
    spread = matrix.std()
    if 0 < spread < SPREAD:
        matrix.mul_(SPREAD / spread)
    matrix.add_(torch.randn_like(matrix) * SPREAD * (matrix == 0))
