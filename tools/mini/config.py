"""Sizes of parley-mini and its config.json, in the form of the released one."""

from common import (CODEC_BOS, CODEC_EOS, CODEC_NOTHINK, CODEC_PAD, CODEC_SPEAKER, CODEC_SPECIALS,
                    CODEC_THINK_BOS, CODEC_THINK_EOS, CODES, GROUPS, SPEAKER)

ENCODER = dict(mels=128, channels=64, hidden=256, layers=4, heads=4, inner=1024, output=384)
THINKER = dict(hidden=384, layers=6, heads=6, kv_heads=2, head_dim=64, experts=4, top_k=2,
               expert_inner=192)
TALKER = dict(hidden=320, layers=6, heads=5, kv_heads=1, head_dim=64, experts=4, top_k=2,
              expert_inner=64, shared_inner=384, projection_inner=384)
PREDICTOR = dict(hidden=320, layers=3, heads=5, kv_heads=1, head_dim=64, inner=640)
CODE2WAV = dict(codebook_size=CODES, hidden_size=256, num_attention_heads=4,
                num_key_value_heads=4, sliding_window=24, intermediate_size=704,
                num_hidden_layers=4, num_quantizers=GROUPS, upsample_rates=[8, 5, 4, 3],
                upsampling_ratios=[2, 2], decoder_dim=512, max_position_embeddings=8000,
                attention_bias=False, hidden_act="silu", layer_scale_initial_scale=0.3,
                rms_norm_eps=1e-5, attention_dropout=0.0, initializer_range=0.02,
                rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, model_type="")
ACCEPT_LAYER = 3        # the talker hears the user through the residual stream entering this layer
TALKER_VOCAB = CODES + CODEC_SPECIALS

MROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [12, 10, 10],
         "mrope_interleaved": True, "interleaved": True}


def _attention(c):
    return {"hidden_size": c["hidden"], "num_hidden_layers": c["layers"],
            "num_attention_heads": c["heads"], "num_key_value_heads": c["kv_heads"],
            "head_dim": c["head_dim"], "hidden_act": "silu", "rms_norm_eps": 1e-6,
            "attention_bias": False, "sliding_window": None, "attention_dropout": 0.0,
            "initializer_range": 0.02, "use_cache": True, "pad_token_id": None,
            "bos_token_id": None, "eos_token_id": None}


def _mixture(c):
    return {"moe_intermediate_size": c["expert_inner"], "num_experts_per_tok": c["top_k"],
            "norm_topk_prob": True, "output_router_logits": False, "router_aux_loss_coef": 0.001,
            "decoder_sparse_step": 1, "mlp_only_layers": [], "rope_parameters": MROPE,
            "max_position_embeddings": 65536}


def _audio():
    c = ENCODER
    return {"num_mel_bins": c["mels"], "encoder_layers": c["layers"],
            "encoder_attention_heads": c["heads"], "encoder_ffn_dim": c["inner"],
            "d_model": c["hidden"], "dropout": 0.0, "attention_dropout": 0.0,
            "activation_function": "gelu", "activation_dropout": 0.0, "scale_embedding": False,
            "initializer_range": 0.02, "max_source_positions": 1500, "n_window": 50,
            "output_dim": c["output"], "n_window_infer": 800, "conv_chunksize": 500,
            "downsample_hidden_size": c["channels"],
            "model_type": "qwen3_omni_moe_audio_encoder"}


def _vision():
    """The classes want a vision tower; parley-mini has none, and stores no weights for this one."""
    return {"depth": 1, "hidden_size": 16, "hidden_act": "gelu_pytorch_tanh",
            "intermediate_size": 24, "num_heads": 2, "in_channels": 3, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 384,
            "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
            "initializer_range": 0.02,
            "rope_parameters": {"rope_theta": 10000.0, "rope_type": "axial"},
            "model_type": "qwen3_omni_moe_vision_encoder"}


def _media_ids(ids):
    return {"audio_token_id": ids["<|audio_pad|>"], "image_token_id": ids["<|image_pad|>"],
            "video_token_id": ids["<|video_pad|>"],
            "vision_start_token_id": ids["<|vision_start|>"],
            "vision_end_token_id": ids["<|vision_end|>"],
            "audio_start_token_id": ids["<|audio_start|>"],
            "audio_end_token_id": ids["<|audio_end|>"], "user_token_id": ids["user"],
            "position_id_per_seconds": 13, "initializer_range": 0.02,
            "tie_word_embeddings": False}


def _thinker(ids, vocab):
    text = {**_attention(THINKER), **_mixture(THINKER), "vocab_size": vocab,
            "intermediate_size": THINKER["expert_inner"], "num_experts": THINKER["experts"],
            "model_type": "qwen3_omni_moe_text"}
    return {"audio_config": _audio(), "vision_config": _vision(), "text_config": text,
            **_media_ids(ids), "model_type": "qwen3_omni_moe_thinker"}


def _talker(ids):
    text = {**_attention(TALKER), **_mixture(TALKER), "vocab_size": TALKER_VOCAB,
            "intermediate_size": TALKER["projection_inner"],
            "num_local_experts": TALKER["experts"],
            "shared_expert_intermediate_size": TALKER["shared_inner"],
            "tie_word_embeddings": False, "model_type": "qwen3_omni_moe_talker_text"}
    predictor = {**_attention(PREDICTOR), "vocab_size": CODES, "num_code_groups": GROUPS,
                 "intermediate_size": PREDICTOR["inner"], "max_position_embeddings": 32768,
                 "tie_word_embeddings": False, "max_window_layers": 28,
                 "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
                 "layer_types": ["full_attention"] * PREDICTOR["layers"],
                 "model_type": "qwen3_omni_moe_talker_code_predictor"}
    return {"code_predictor_config": predictor, "text_config": text, "num_code_groups": GROUPS,
            "thinker_hidden_size": THINKER["hidden"], "accept_hidden_layer": ACCEPT_LAYER,
            "codec_eos_token_id": CODEC_EOS, "codec_nothink_id": CODEC_NOTHINK,
            "codec_think_bos_id": CODEC_THINK_BOS, "codec_think_eos_id": CODEC_THINK_EOS,
            "codec_pad_id": CODEC_PAD, "codec_bos_id": CODEC_BOS, **_media_ids(ids),
            "speaker_id": {SPEAKER: CODEC_SPEAKER}, "spatial_merge_size": 2, "model_type": ""}


def build(ids, vocab):
    """config.json of a tokenizer with these token ids and so many rows of embeddings."""
    return {"architectures": ["Qwen3OmniMoeForConditionalGeneration"],
            "model_type": "qwen3_omni_moe", "dtype": "bfloat16",
            "thinker_config": _thinker(ids, vocab), "talker_config": _talker(ids),
            "code2wav_config": CODE2WAV, "enable_audio_output": True,
            "im_start_token_id": ids["<|im_start|>"], "im_end_token_id": ids["<|im_end|>"],
            "tts_pad_token_id": ids["<tts_pad>"], "tts_bos_token_id": ids["<tts_text_bos>"],
            "tts_eos_token_id": ids["<tts_text_eod>"], "system_token_id": ids["system"],
            "user_token_id": ids["user"], "assistant_token_id": ids["assistant"],
            "initializer_range": 0.02}
