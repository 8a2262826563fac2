"""Every backbone family of KerasHub, as small as it can be and still have each kind of its layers.

Nothing is downloaded: the weights are random. Sizes differ wherever a family lets them, so that an
axis taken for another does not fit. A family that cannot be built says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras_hub

MODELS: Any = keras_hub.models
TEXT: Mapping[str, int] = {
    "vocabulary_size": 23,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 12,
    "intermediate_dim": 20,
}
POSITIONS = {**TEXT, "max_sequence_length": 17}
# Fewer heads of key and value than of the query.
GROUPED: Mapping[str, int] = {
    "vocabulary_size": 23,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 24,
    "intermediate_dim": 20,
}
GEMMA = {**GROUPED, "head_dim": 10}
MOE = {"moe_intermediate_dim": 14, "num_experts": 3, "top_k": 2}
LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 5,
}
IMAGE = (32, 32, 3)
T5GEMMA: Mapping[str, Any] = {
    "vocabulary_size": 23,
    **{
        f"{side}_{word}": value
        for side in ("encoder", "decoder")
        for word, value in {
            "hidden_dim": 24,
            "intermediate_dim": 20,
            "num_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 10,
            "layer_types": ["sliding_attention", "full_attention"],
        }.items()
    },
    "sliding_window": 8,
}


def _resnet(**options: Any) -> Any:
    return MODELS.ResNetBackbone(
        **{
            "input_conv_filters": [64],
            "input_conv_kernel_sizes": [7],
            "stackwise_num_filters": [64, 7, 8, 9],
            "stackwise_num_blocks": [1, 2, 1, 1],
            "stackwise_num_strides": [1, 2, 2, 2],
            "block_type": "basic_block",
            "image_shape": (64, 64, 3),
            **options,
        }
    )


def _vit(**options: Any) -> Any:
    return MODELS.ViTBackbone(
        **{
            "image_shape": IMAGE,
            "patch_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "hidden_dim": 12,
            "mlp_dim": 20,
            **options,
        }
    )


def _mit() -> Any:
    return MODELS.MiTBackbone(
        image_shape=(64, 64, 3),
        num_layers=2,
        hidden_dims=[6, 8],
        layerwise_depths=[1, 2],
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        max_drop_path_rate=0.1,
    )


def _dinov2(**options: Any) -> Any:
    return MODELS.DINOV2Backbone(
        **{
            "patch_size": 14,
            "num_layers": 2,
            "hidden_dim": 12,
            "num_heads": 2,
            "intermediate_dim": 20,
            "image_shape": (28, 28, 3),
            "position_embedding_shape": (42, 42, 3),
            "num_register_tokens": 3,
            **options,
        }
    )


def _hgnet(**options: Any) -> Any:
    return MODELS.HGNetV2Backbone(
        **{
            "stem_channels": [3, 6, 7],
            "stackwise_stage_filters": [
                [7, 8, 10, 1, 2, 3],
                [10, 9, 12, 1, 2, 3],
                [12, 11, 14, 2, 2, 5],
                [14, 13, 16, 1, 2, 5],
            ],
            "apply_downsample": [False, True, True, True],
            "use_lightweight_conv_block": [False, False, True, True],
            "depths": [1, 1, 2, 1],
            "hidden_sizes": [10, 12, 14, 16],
            "embedding_size": 7,
            "use_learnable_affine_block": True,
            "hidden_act": "relu",
            "image_shape": (64, 64, 3),
            **options,
        }
    )


def _d_fine() -> Any:
    return MODELS.DFineBackbone(
        backbone=_hgnet(out_features=["stage3", "stage4"]),
        decoder_in_channels=[16, 16],
        encoder_hidden_dim=16,
        num_denoising=0,
        num_labels=5,
        hidden_dim=16,
        learn_initial_query=False,
        num_queries=7,
        anchor_image_size=(64, 64),
        feat_strides=[16, 32],
        num_feature_levels=2,
        encoder_in_channels=[14, 16],
        encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=20,
        num_encoder_layers=1,
        hidden_expansion=0.5,
        depth_multiplier=0.5,
        eval_idx=-1,
        num_decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=20,
        decoder_n_points=[3, 3],
        lqe_hidden_dim=9,
        num_lqe_layers=2,
        out_features=["stage3", "stage4"],
        image_shape=(64, 64, 3),
        seed=0,
    )


def _clip(prefix: str) -> Any:
    vision = getattr(MODELS, f"{prefix}VisionEncoder")(
        patch_size=16,
        hidden_dim=12,
        num_layers=2,
        num_heads=2,
        intermediate_dim=20,
        image_shape=IMAGE,
    )
    words = {"num_layers": 2, "num_heads": 2, "intermediate_dim": 22, "max_sequence_length": 17}
    text = _clip_text(prefix, **words)
    options = {} if prefix == "SigLIP" else {"projection_dim": 11}
    backbone = getattr(MODELS, f"{prefix}Backbone")
    return backbone(vision_encoder=vision, text_encoder=text, **options)


def _clip_text(prefix: str, **options: Any) -> Any:
    embed = 14 if prefix != "SigLIP" else 12
    return getattr(MODELS, f"{prefix}TextEncoder")(
        vocabulary_size=23, embedding_dim=embed, hidden_dim=embed, **options
    )


def _stable_diffusion() -> Any:
    words = {"num_layers": 2, "num_heads": 2, "max_sequence_length": 17}
    words["intermediate_output_index"] = 0
    from keras_hub.src.models.vae.vae_backbone import VAEBackbone

    vae = VAEBackbone(
        encoder_num_filters=[32, 32],
        encoder_num_blocks=[1, 1],
        decoder_num_filters=[32, 32],
        decoder_num_blocks=[1, 1],
    )
    return MODELS.StableDiffusion3Backbone(
        mmdit_patch_size=2,
        mmdit_hidden_dim=24,
        mmdit_num_layers=2,
        mmdit_num_heads=2,
        mmdit_position_size=9,
        mmdit_qk_norm="rms_norm",
        mmdit_dual_attention_indices=(0,),
        vae=vae,
        clip_l=_clip_text("CLIP", intermediate_dim=22, **words),
        clip_g=_clip_text("CLIP", intermediate_dim=26, **words),
        image_shape=(16, 16, 3),
    )


def _sam() -> Any:
    size = 32
    return MODELS.SAMBackbone(
        image_encoder=_vit_det(image_shape=(size, size, 3), patch_size=16, num_output_channels=8),
        prompt_encoder=keras_hub.layers.SAMPromptEncoder(
            hidden_size=8,
            image_embedding_size=(2, 2),
            input_image_size=(size, size),
            mask_in_channels=16,
        ),
        mask_decoder=keras_hub.layers.SAMMaskDecoder(
            num_layers=2,
            hidden_size=8,
            intermediate_dim=20,
            num_heads=2,
            embedding_dim=8,
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=9,
        ),
    )


def _sam3() -> Any:
    layers = keras_hub.layers
    size = {"hidden_dim": 16, "intermediate_dim": 20, "num_heads": 2}
    return MODELS.SAM3PromptableConceptBackbone(
        vision_encoder=layers.SAM3VisionEncoder(
            image_shape=(56, 56, 3),
            patch_size=14,
            num_layers=2,
            fpn_hidden_dim=16,
            fpn_scale_factors=[4.0, 2.0, 1.0, 0.5],
            pretrain_image_shape=(28, 28, 3),
            window_size=2,
            global_attn_indexes=[1],
            **size,
        ),
        text_encoder=layers.SAM3TextEncoder(
            vocabulary_size=23, embedding_dim=16, num_layers=2, **size
        ),
        geometry_encoder=layers.SAM3GeometryEncoder(num_layers=1, roi_size=7, **size),
        detr_encoder=layers.SAM3DetrEncoder(num_layers=1, **size),
        detr_decoder=layers.SAM3DetrDecoder(
            image_shape=(56, 56, 3), patch_size=14, num_layers=1, num_queries=7, **size
        ),
        mask_decoder=layers.SAM3MaskDecoder(num_upsampling_stages=3, hidden_dim=16, num_heads=2),
    )


def _vit_det(**options: Any) -> Any:
    return MODELS.ViTDetBackbone(
        **{
            "hidden_size": 12,
            "num_layers": 2,
            "intermediate_dim": 20,
            "num_heads": 2,
            "global_attention_layer_indices": [1],
            "image_shape": IMAGE,
            "patch_size": 4,
            "num_output_channels": 7,
            "window_size": 2,
            **options,
        }
    )


def _mobilenet_v5(**options: Any) -> Any:
    return MODELS.MobileNetV5Backbone(
        **{
            "stackwise_block_types": [["er"], ["uir", "mqa"]],
            "stackwise_num_blocks": [1, 2],
            "stackwise_num_filters": [[8], [10, 10]],
            "stackwise_strides": [[2], [2, 1]],
            "stackwise_act_layers": [["relu"], ["relu", "relu"]],
            "stackwise_exp_ratios": [[4.0], [6.0, 6.0]],
            "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
            "stackwise_dw_kernel_sizes": [[0], [5, 5]],
            "stackwise_dw_start_kernel_sizes": [[0], [3, 0]],
            "stackwise_dw_end_kernel_sizes": [[0], [3, 0]],
            "stackwise_exp_kernel_sizes": [[3], [0, 0]],
            "stackwise_pw_kernel_sizes": [[1], [0, 0]],
            "stackwise_num_heads": [[0], [0, 2]],
            "stackwise_key_dims": [[0], [0, 6]],
            "stackwise_value_dims": [[0], [0, 5]],
            "stackwise_kv_strides": [[0], [0, 2]],
            "stackwise_use_cpe": [[False], [False, False]],
            "layer_scale_init_value": 0.1,
            "num_features": 16,
            "image_shape": IMAGE,
            **options,
        }
    )


def _mobilenet() -> Any:
    return MODELS.MobileNetBackbone(
        stackwise_expansion=[[8, 10], [12, 14, 14]],
        stackwise_num_blocks=[2, 3],
        stackwise_num_filters=[[6, 6], [9, 9, 9]],
        stackwise_kernel_size=[[3, 3], [5, 5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1, 1]],
        stackwise_se_ratio=[[None, None], [0.5, 0.5, 0.5]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2, 2]],
        output_num_filters=20,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=18,
        squeeze_and_excite=0.5,
        input_num_filters=7,
        image_shape=IMAGE,
    )


def _efficientnet() -> Any:
    return MODELS.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 3,
        stackwise_depth_coefficients=[1.0] * 3,
        stackwise_kernel_sizes=[3, 3, 5],
        stackwise_num_repeats=[1, 2, 2],
        stackwise_input_filters=[8, 8, 16],
        stackwise_output_filters=[8, 16, 24],
        stackwise_expansion_ratios=[1, 4, 4],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.25, 0.25],
        stackwise_strides=[1, 2, 2],
        stackwise_block_types=["fused", "unfused", "unfused"],
        input_shape=IMAGE,
        num_features=17,
    )


def _cspnet(stage: str, block: str = "dark_block") -> Any:
    return MODELS.CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2],
        stackwise_strides=[1, 2],
        stackwise_num_filters=[12, 16],
        stage_type=stage,
        block_type=block,
        image_shape=IMAGE,
    )


def _gemma3n() -> Any:
    from keras_hub.src.models.gemma3n.gemma3n_audio_encoder import Gemma3nAudioEncoder

    audio = Gemma3nAudioEncoder(
        hidden_size=8,
        input_feat_size=32,
        sscp_conv_channel_size=[4, 6],
        sscp_conv_kernel_size=[(3, 3), (3, 3)],
        sscp_conv_stride_size=[(2, 2), (2, 2)],
        sscp_conv_group_norm_eps=1e-5,
        num_hidden_layers=1,
        rms_norm_eps=1e-6,
        gradient_clipping=1.0,
        residual_weight=0.5,
        num_attention_heads=1,
        attention_chunk_size=4,
        num_attention_context_right=5,
        num_attention_context_left=5,
        attention_logit_cap=50.0,
        conv_kernel_size=5,
        reduction_factor=1,
    )
    return MODELS.Gemma3nBackbone(
        text_vocab_size=50,
        text_hidden_size=12,
        num_hidden_layers=2,
        pad_token_id=0,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=[16, 16],
        hidden_activation="gelu_approximate",
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=4,
        rope_theta=10000.0,
        max_position_embeddings=16,
        vocab_size_per_layer_input=50,
        hidden_size_per_layer_input=6,
        altup_num_inputs=2,
        laurel_rank=3,
        vision_encoder_config=_mobilenet_v5(use_msfa=False, num_features=8).get_config(),
        vision_hidden_size=8,
        audio_encoder_config=audio.get_config(),
        audio_hidden_size=8,
    )


def _gemma3() -> Any:
    from keras_hub.src.models.gemma3.gemma3_vision_encoder import Gemma3VisionEncoder

    return MODELS.Gemma3Backbone(
        **GEMMA,
        image_size=16,
        use_post_ffw_norm=True,
        use_post_attention_norm=True,
        vision_encoder=Gemma3VisionEncoder(
            image_size=16,
            patch_size=4,
            pool_size=2,
            num_layers=2,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=14,
            output_dim=24,
        ),
    )


def _gemma4() -> Any:
    from keras_hub.src.models.gemma4.gemma4_vision_encoder import Gemma4VisionEncoder

    return MODELS.Gemma4Backbone(
        **GEMMA,
        image_size=16,
        global_head_dim=14,
        num_global_key_value_heads=1,
        layer_types=["sliding_attention", "full_attention"],
        hidden_size_per_layer_input=5,
        vocab_size_per_layer_input=29,
        enable_moe_block=True,
        num_experts=3,
        expert_intermediate_dim=9,
        num_experts_per_token=2,
        vision_encoder=Gemma4VisionEncoder(
            image_size=16,
            patch_size=4,
            pool_size=2,
            num_layers=2,
            num_heads=2,
            head_dim=6,
            num_key_value_heads=2,
            hidden_dim=12,
            intermediate_dim=14,
            output_dim=24,
        ),
    )


def _blip2() -> Any:
    from keras_hub.src.models.blip2.blip2_custom_opt import BLIP2CustomOPT
    from keras_hub.src.models.blip2.blip2_qformer import BLIP2QFormer
    from keras_hub.src.models.blip2.blip2_vision_encoder import BLIP2VisionEncoder

    return MODELS.BLIP2Backbone(
        vision_encoder=BLIP2VisionEncoder(
            image_size=32,
            patch_size=16,
            num_layers=2,
            num_heads=2,
            hidden_dim=12,
            intermediate_dim=20,
            use_patch_bias=True,
            use_class_token=True,
            use_mha_bias=True,
            use_mlp_bias=True,
            dropout_rate=0.0,
            layer_norm_epsilon=1e-6,
            initializer_range=0.02,
        ),
        qformer=BLIP2QFormer(
            num_query_tokens=3,
            num_layers=2,
            num_heads=2,
            hidden_dim=10,
            intermediate_dim=18,
            vision_dim=12,
            cross_attention_frequency=2,
            dropout=0.0,
            layer_norm_epsilon=1e-12,
        ),
        language_model=BLIP2CustomOPT(
            vocabulary_size=23,
            num_layers=2,
            num_heads=2,
            hidden_dim=14,
            intermediate_dim=22,
            max_sequence_length=17,
            num_query_tokens=3,
            dropout=0.0,
            qformer_hidden_dim=10,
        ),
    )


def _smol_lm() -> Any:
    return MODELS.SmolLM3Backbone(
        vocabulary_size=23,
        hidden_dim=24,
        intermediate_dim=20,
        num_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=False,
        attention_dropout=0.0,
        rope_layer_enabled_list=[True, False],
        layer_types=["full_attention", "full_attention"],
        mlp_bias=False,
        layer_norm_epsilon=1e-5,
        max_position_embeddings=17,
        rope_theta=10000.0,
        partial_rotary_factor=1.0,
    )


# Family → what builds it. The names are those of `keras_hub.models`, without `Backbone`.
FAMILIES: Mapping[str, Callable[[], Any]] = {
    "Albert": lambda: MODELS.AlbertBackbone(**POSITIONS, embedding_dim=10, num_groups=2),
    "BASNet": lambda: MODELS.BASNetBackbone(
        image_encoder=_resnet(image_shape=(None, None, 3)),
        num_classes=1,
        image_shape=(64, 64, 3),
        projection_filters=64,
    ),
    "BLIP2": _blip2,
    "Bart": lambda: MODELS.BartBackbone(**POSITIONS),
    "Bert": lambda: MODELS.BertBackbone(**POSITIONS),
    "Bloom": lambda: MODELS.BloomBackbone(**TEXT),
    "CLIP": lambda: _clip("CLIP"),
    "CSPNet": lambda: _cspnet("dark"),
    "DFine": _d_fine,
    "DINOV2": lambda: _dinov2(),
    "DINOV3": lambda: MODELS.DINOV3Backbone(
        patch_size=14,
        num_layers=2,
        hidden_dim=16,
        num_heads=2,
        intermediate_dim=20,
        image_shape=(28, 28, 3),
    ),
    "DebertaV3": lambda: MODELS.DebertaV3Backbone(**POSITIONS, bucket_size=5),
    "DeepLabV3": lambda: MODELS.DeepLabV3Backbone(
        image_encoder=_resnet(),
        projection_filters=5,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        upsampling_size=4,
        dilation_rates=[2, 3],
        image_shape=(64, 64, 3),
    ),
    "DeiT": lambda: MODELS.DeiTBackbone(
        image_shape=IMAGE,
        patch_size=16,
        num_layers=2,
        num_heads=2,
        hidden_dim=12,
        intermediate_dim=20,
    ),
    "DenseNet": lambda: MODELS.DenseNetBackbone(
        stackwise_num_repeats=[2, 1, 1], growth_rate=6, image_shape=IMAGE
    ),
    "DepthAnything": lambda: MODELS.DepthAnythingBackbone(
        image_encoder=_dinov2(num_layers=4, image_shape=(112, 112, 3)),
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_dims=[5, 6, 7, 8],
        fusion_hidden_dim=9,
        head_hidden_dim=11,
        head_in_index=-1,
        feature_keys=["stage1", "stage2", "stage3", "stage4"],
    ),
    "DistilBert": lambda: MODELS.DistilBertBackbone(**POSITIONS),
    "ESM": lambda: MODELS.ESMBackbone(
        **POSITIONS, use_pre_layer_norm=True, position_embedding_type="absolute"
    ),
    "ESM2": lambda: MODELS.ESM2Backbone(**POSITIONS),
    "EdRec": lambda: MODELS.EdRecBackbone(
        vocab_size=23,
        num_layers_enc=2,
        num_layers_dec=1,
        hidden_dim=12,
        intermediate_dim=20,
        num_heads=2,
    ),
    "EfficientNet": _efficientnet,
    "Electra": lambda: MODELS.ElectraBackbone(
        **{("vocab_size" if k == "vocabulary_size" else k): v for k, v in POSITIONS.items()},
        embedding_dim=10,
    ),
    "FNet": lambda: MODELS.FNetBackbone(
        **{name: value for name, value in POSITIONS.items() if name != "num_heads"}
    ),
    "Falcon": lambda: MODELS.FalconBackbone(
        **{("num_attention_heads" if k == "num_heads" else k): v for k, v in TEXT.items()}
    ),
    "Flux": lambda: MODELS.FluxBackbone(
        input_channels=8,
        hidden_size=12,
        mlp_ratio=2.0,
        num_heads=2,
        depth=1,
        depth_single_blocks=1,
        axes_dim=[2, 2, 2],
        theta=10_000,
        use_bias=True,
        guidance_embed=True,
        image_shape=(9, 8),
        text_shape=(7, 10),
        image_ids_shape=(9, 3),
        text_ids_shape=(7, 3),
        y_shape=(11,),
    ),
    "GPT2": lambda: MODELS.GPT2Backbone(**POSITIONS),
    "GPTNeoX": lambda: MODELS.GPTNeoXBackbone(**POSITIONS, rotary_percentage=0.5),
    "Gemma": lambda: MODELS.GemmaBackbone(
        **GEMMA, use_post_ffw_norm=True, use_post_attention_norm=True
    ),
    "Gemma3": _gemma3,
    "Gemma3n": _gemma3n,
    "Gemma4": _gemma4,
    "GptOss": lambda: MODELS.GptOssBackbone(**GROUPED, num_experts=3, head_dim=10),
    "HGNetV2": lambda: _hgnet(),
    "Llama": lambda: MODELS.LlamaBackbone(**GROUPED),
    "Llama3": lambda: MODELS.Llama3Backbone(**GROUPED, tie_word_embeddings=True),
    "MetaCLIP2": lambda: _clip("MetaCLIP2"),
    "MiT": _mit,
    "Mistral": lambda: MODELS.MistralBackbone(**GROUPED),
    "Mixtral": lambda: MODELS.MixtralBackbone(**GROUPED, num_experts=3),
    "MobileNet": _mobilenet,
    "MobileNetV5": lambda: _mobilenet_v5(),
    "Moonshine": lambda: MODELS.MoonshineBackbone(
        vocabulary_size=23,
        filter_dim=15,
        encoder_num_layers=1,
        decoder_num_layers=1,
        hidden_dim=16,
        intermediate_dim=20,
        encoder_num_heads=2,
        decoder_num_heads=2,
    ),
    "OPT": lambda: MODELS.OPTBackbone(**POSITIONS),
    "PARSeq": lambda: MODELS.PARSeqBackbone(
        image_encoder=_vit(use_class_token=False),
        vocabulary_size=23,
        max_label_length=7,
        decoder_hidden_dim=12,
        num_decoder_layers=1,
        num_decoder_heads=2,
        decoder_mlp_dim=18,
    ),
    "PaliGemma": lambda: MODELS.PaliGemmaBackbone(
        **GEMMA,
        image_size=16,
        vit_patch_size=4,
        vit_num_heads=2,
        vit_hidden_dim=8,
        vit_num_layers=2,
        vit_intermediate_dim=14,
    ),
    "Phi3": lambda: MODELS.Phi3Backbone(**GROUPED, max_sequence_length=17),
    "Qwen": lambda: MODELS.QwenBackbone(**GROUPED),
    "Qwen2": lambda: MODELS.Qwen2Backbone(**GROUPED, tie_word_embeddings=False),
    "Qwen3": lambda: MODELS.Qwen3Backbone(**GEMMA),
    "Qwen3Moe": lambda: MODELS.Qwen3MoeBackbone(**GEMMA, **MOE),
    "Qwen3_5": lambda: MODELS.Qwen3_5Backbone(**GEMMA, **LINEAR_ATTENTION),
    "Qwen3_5Moe": lambda: MODELS.Qwen3_5MoeBackbone(
        **{name: value for name, value in GEMMA.items() if name != "intermediate_dim"},
        **MOE,
        **LINEAR_ATTENTION,
        shared_expert_intermediate_size=15,
    ),
    "QwenMoe": lambda: MODELS.QwenMoeBackbone(**GROUPED, **MOE, shared_expert_intermediate_dim=15),
    "RWKV7": lambda: MODELS.RWKV7Backbone(
        hidden_size=12,
        head_size=6,
        num_layers=2,
        vocabulary_size=23,
        intermediate_dim=20,
        gate_lora=5,
        mv_lora=7,
        aaa_lora=8,
        decay_lora=9,
    ),
    "ResNet": lambda: _resnet(use_pre_activation=True, block_type="bottleneck_block"),
    "RetinaNet": lambda: MODELS.RetinaNetBackbone(
        image_encoder=_resnet(), min_level=3, max_level=5, use_p5=False, image_shape=(64, 64, 3)
    ),
    "Roberta": lambda: MODELS.RobertaBackbone(**POSITIONS),
    "RoformerV2": lambda: MODELS.RoformerV2Backbone(**TEXT, head_size=6),
    "SAM": _sam,
    "SAM3PromptableConcept": _sam3,
    "SegFormer": lambda: MODELS.SegFormerBackbone(image_encoder=_mit(), projection_filters=7),
    "SigLIP": lambda: _clip("SigLIP"),
    "SmolLM3": _smol_lm,
    "StableDiffusion3": _stable_diffusion,
    "SwinTransformer": lambda: MODELS.SwinTransformerBackbone(
        image_shape=IMAGE, embed_dim=12, depths=[2, 1], num_heads=[2, 3], window_size=4
    ),
    "T5": lambda: MODELS.T5Backbone(**TEXT, key_value_dim=5, tie_embedding_weights=False),
    "T5Gemma": lambda: MODELS.T5GemmaBackbone(**T5GEMMA),
    "T5Gemma2": lambda: MODELS.T5Gemma2Backbone(**T5GEMMA),
    "VGG": lambda: MODELS.VGGBackbone(
        stackwise_num_repeats=[1, 2], stackwise_num_filters=[5, 6], image_shape=IMAGE
    ),
    "ViT": lambda: _vit(),
    "ViTDet": lambda: _vit_det(),
    "VideoPrism": lambda: MODELS.VideoPrismBackbone(
        num_frames=2,
        patch_size=16,
        hidden_dim=12,
        intermediate_dim=20,
        num_heads=2,
        num_spatial_layers=1,
        num_temporal_layers=1,
        num_auxiliary_layers=1,
        vocabulary_size=23,
        num_text_layers=1,
        image_shape=IMAGE,
    ),
    "Whisper": lambda: MODELS.WhisperBackbone(
        **TEXT, num_mels=9, max_encoder_sequence_length=14, max_decoder_sequence_length=13
    ),
    "XLMRoberta": lambda: MODELS.XLMRobertaBackbone(**POSITIONS),
    "XLNet": lambda: MODELS.XLNetBackbone(**TEXT),
    "Xception": lambda: MODELS.XceptionBackbone(
        stackwise_conv_filters=[[6, 7], [8, 9]],
        stackwise_pooling=[True, False],
        image_shape=(64, 64, 3),
    ),
}
# Classes that are no family of their own.
NOT_BUILT: Mapping[str, str] = {
    "Backbone": "has what its subclasses give it",
    "FeaturePyramidBackbone": "has what its subclasses give it",
    "SmolLMBackbone": "is SmolLM3Backbone under its older name",
}


def _smol_lm_biased() -> Any:
    config = _smol_lm().get_config()
    return MODELS.SmolLM3Backbone(**{**config, "attention_bias": True, "mlp_bias": True})


SPARSE = {**MOE, "decoder_sparse_step": 2}
GEMMA3 = {**GEMMA, "image_size": 16}
EMBEDDING = {"is_embedding_model": True, "pooling_intermediate_dim": 11, "embedding_dim": 13}
VD = {"input_conv_filters": [8, 8, 64], "input_conv_kernel_sizes": [3, 3, 3]}
# A family with other options, which change what is stored.
OPTIONS: Mapping[str, Callable[[], Any]] = {
    "DINOV2 gated": lambda: _dinov2(use_swiglu_ffn=True, num_register_tokens=0),
    "DINOV2 unmasked": lambda: _dinov2(use_mask_token=False),
    "DINOV3 gated": lambda: MODELS.DINOV3Backbone(
        patch_size=14,
        num_layers=2,
        hidden_dim=16,
        num_heads=2,
        intermediate_dim=20,
        image_shape=(28, 28, 3),
        use_gated_mlp=True,
        use_key_bias=False,
        use_mask_token=False,
        num_register_tokens=0,
    ),
    "ESM rotary": lambda: MODELS.ESMBackbone(**POSITIONS, use_bias=False),
    "Gemma3 text": lambda: MODELS.Gemma3Backbone(**GEMMA3),
    "Gemma3 embedding": lambda: MODELS.Gemma3Backbone(**GEMMA3, **EMBEDDING),
    "Gemma4 shared": lambda: MODELS.Gemma4Backbone(
        **GEMMA3, num_kv_shared_layers=1, use_double_wide_mlp=True
    ),
    "HGNetV2 plain": lambda: _hgnet(use_learnable_affine_block=False),
    "MobileNetV5 batch": lambda: _mobilenet_v5(norm_layer="batch_norm"),
    "Moonshine biased": lambda: MODELS.MoonshineBackbone(
        vocabulary_size=23,
        filter_dim=15,
        encoder_num_layers=1,
        decoder_num_layers=1,
        hidden_dim=16,
        intermediate_dim=20,
        encoder_num_heads=2,
        decoder_num_heads=2,
        encoder_use_swiglu_activation=True,
        decoder_use_swiglu_activation=False,
        attention_bias=True,
    ),
    "Qwen2 tied": lambda: MODELS.Qwen2Backbone(**GROUPED),
    "Qwen3Moe dense": lambda: MODELS.Qwen3MoeBackbone(**GEMMA, **SPARSE),
    "QwenMoe dense": lambda: MODELS.QwenMoeBackbone(
        **GROUPED, **SPARSE, shared_expert_intermediate_dim=15
    ),
    "ResNet vd": lambda: _resnet(block_type="bottleneck_block_vd", **VD),
    "ResNet basic vd": lambda: _resnet(block_type="basic_block_vd", **VD),
    "RetinaNet normed": lambda: MODELS.RetinaNetBackbone(
        image_encoder=_resnet(),
        min_level=3,
        max_level=6,
        use_p5=True,
        use_fpn_batch_norm=True,
        image_shape=(64, 64, 3),
    ),
    "RoformerV2 biased": lambda: MODELS.RoformerV2Backbone(**TEXT, head_size=6, use_bias=True),
    "SmolLM3 biased": _smol_lm_biased,
    "SwinTransformer plain": lambda: MODELS.SwinTransformerBackbone(
        image_shape=IMAGE,
        embed_dim=12,
        depths=[2, 1],
        num_heads=[2, 3],
        window_size=4,
        patch_norm=False,
        qkv_bias=False,
    ),
    "T5 tied": lambda: MODELS.T5Backbone(**TEXT, use_gated_activation=False),
    "T5Gemma untied": lambda: MODELS.T5GemmaBackbone(
        **T5GEMMA, attention_bias=True, tie_word_embeddings=False
    ),
    "ViT plain": lambda: _vit(
        use_class_token=False, use_mha_bias=False, use_mlp_bias=False, use_patch_bias=False
    ),
    "ViTDet plain": lambda: _vit_det(use_rel_pos=False, use_abs_pos=False, use_bias=False),
    "VideoPrism video": lambda: MODELS.VideoPrismBackbone(
        num_frames=2,
        patch_size=16,
        hidden_dim=12,
        intermediate_dim=20,
        num_heads=2,
        num_spatial_layers=1,
        num_temporal_layers=1,
        num_auxiliary_layers=0,
        image_shape=IMAGE,
    ),
}


def _task(name: str, family: str, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        options.setdefault("preprocessor", None)
        return getattr(MODELS, name)(backbone=FAMILIES[family](), **options)

    return make


# A backbone with what a task puts on it.
TASKS: Mapping[str, Callable[[], Any]] = {
    "AlbertMaskedLM": _task("AlbertMaskedLM", "Albert"),
    "BartSeq2SeqLM": _task("BartSeq2SeqLM", "Bart"),
    "BertMaskedLM": _task("BertMaskedLM", "Bert"),
    "BertTextClassifier": _task("BertTextClassifier", "Bert", num_classes=3),
    "DebertaV3MaskedLM": _task("DebertaV3MaskedLM", "DebertaV3"),
    "DeepLabV3ImageSegmenter": _task("DeepLabV3ImageSegmenter", "DeepLabV3", num_classes=3),
    "DepthAnythingDepthEstimator": _task(
        "DepthAnythingDepthEstimator", "DepthAnything", depth_estimation_type="relative"
    ),
    "DFineObjectDetector": _task(
        "DFineObjectDetector", "DFine", num_classes=5, bounding_box_format="xywh"
    ),
    "FNetMaskedLM": _task("FNetMaskedLM", "FNet"),
    "GemmaCausalLM": _task("GemmaCausalLM", "Gemma"),
    "GPT2CausalLM": _task("GPT2CausalLM", "GPT2"),
    "LlamaCausalLM": _task("LlamaCausalLM", "Llama"),
    "MobileNetImageClassifier": _task("MobileNetImageClassifier", "MobileNet", num_classes=3),
    "MoonshineAudioToText": _task("MoonshineAudioToText", "Moonshine"),
    "ResNetImageClassifier": _task("ResNetImageClassifier", "ResNet", num_classes=3),
    "RetinaNetObjectDetector": _task(
        "RetinaNetObjectDetector", "RetinaNet", num_classes=3, bounding_box_format="xywh"
    ),
    "RobertaTextClassifier": _task("RobertaTextClassifier", "Roberta", num_classes=3),
    "SAMImageSegmenter": _task("SAMImageSegmenter", "SAM"),
    "SegFormerImageSegmenter": _task("SegFormerImageSegmenter", "SegFormer", num_classes=3),
    "StableDiffusion3TextToImage": _task("StableDiffusion3TextToImage", "StableDiffusion3"),
    "ViTImageClassifier": _task("ViTImageClassifier", "ViT", num_classes=3),
}
EVERYTHING: Mapping[str, Callable[[], Any]] = {**FAMILIES, **OPTIONS, **TASKS}
