"""KerasHub's layers that have weights of their own, as sentences.

A line is a weight in stored order: its name, in Keras and, behind it, in other targets where that
differs, and its sentence. `?` stands before one that is there only with some option, `~` before one
that is not trained. Where `torch.nn` has a module that holds the same, the name is that module's;
elsewhere it is a parameter of a module of one's own, laid out as Keras does.

Sources: the `build` methods in `keras_hub/src` of KerasHub 0.32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["HINTS", "LIKE", "TABLE"]

TABLE: Final = """
PositionEmbedding
    embeddings weight: length embed
BLIP2QueryTokens
    query_tokens: 1 query channel
CLIPHead MetaCLIP2Head
    logit_scale:
CLIPVisionEmbedding
    class_embedding: channel
    ~position_ids: 1 length
DeiTEmbeddings
    ?mask_token: 1 1 channel
    class_token: 1 1 channel
    distillation_token: 1 1 channel
    position_embedding: 1 length channel
DFineDecoder
    ~reg_scale: 1
    ~upsampling_factor: 1
DFineMultiscaleDeformableAttention
    ~num_points_scale: point
DINOV2Embedding
    cls_token: 1 1 channel
    ?mask_token: 1 channel
    ?register_tokens: 1 register channel
    interpolated_position_embeddings: 1 interpolated channel
    ~position_embeddings: 1 length channel
DINOV3Embedding
    cls_token: 1 1 channel
    ?mask_token: 1 1 channel
    ?register_tokens: 1 register channel
Gemma3nAudioAttention Gemma4AudioAttention
    per_dim_scale: key
Gemma3nAudioCumulativeGroupNorm
    scale weight: channel
Gemma3nTextAltUp
    correct_output_scale: channel
Gemma4AudioRelativePositionEmbedding
    pos_proj: in out
Gemma4ClippableDense Gemma4ClippableEinsumDense
    ~input_min:
    ~input_max:
    ~output_min:
    ~output_max:
Gemma4MoEBlock
    gate_proj: expert in hidden
    up_proj: expert in hidden
    down_proj: expert hidden out
    per_expert_scale: expert
Gemma4Router
    per_dim_scale: channel
Gemma4TextDecoderBlock
    ~layer_scalar:
Gemma4VisionOutput
    ~std_bias: channel
    ~std_scale: channel
Gemma4VisionPatchEmbedder
    position_embedding_table: axis length channel
GptOssAttention
    sinks: head
GptOssExperts
    gate_up_proj: expert in gated
    gate_up_proj_bias: expert gated
    down_proj: expert hidden out
    down_proj_bias: expert out
HGNetV2LearnableAffineBlock
    scale:
    bias:
MaskedLMHead
    ?output_kernel: in token
    output_bias: token
MetaCLIP2VisionEmbedding
    class_embedding: channel
MixtralMoeExperts
    expert_feedforward_gate_dense: expert in hidden
    expert_feedforward_intermediate_dense: expert in hidden
    expert_feedforward_output_dense: expert hidden out
MoonshineRotaryEmbedding SmolLM3RotaryEmbedding
    ~inv_freq: frequency
MultiHeadAttentionPooling SigLIPMultiHeadAttentionPooling
    probe: 1 1 channel
PARSeqDecoder
    pos_query_embeddings: 1 length channel
Qwen3MoeExperts Qwen3_5MoeExperts QwenMoeExperts
    expert_feedforward_gate_dense: expert in gated
    expert_feedforward_output_dense: expert hidden out
Qwen3_5GatedDeltaNet
    conv1d_kernel: channel k
    dt_bias: head
    A_log: head
Qwen3_5RMSNormGated
    scale weight: channel
RandomFrequencyPositionalEmbeddings
    ~positional_encoding_gaussian_matrix: coordinate frequency
RelativeEmbedding
    rel_embedding weight: bucket channel
RWKV7ChannelMix
    x_k: channel
RWKV7TimeMix
    x_r: channel
    x_w: channel
    x_k: channel
    x_v: channel
    x_a: channel
    x_g: channel
    w0: channel
    w1: channel decay
    w2: decay channel
    a0: channel
    a1: channel rate
    a2: rate channel
    ?v0: channel
    ?v1: channel mixed
    ?v2: mixed channel
    g1: channel gate
    g2: gate channel
    k_k: channel
    k_a: channel
    r_k: head key
SAM3Embedding
    tiled_position_embeddings: 1 tiled channel
    ~position_embeddings: 1 length channel
SAM3ViTRotaryEmbedding
    ~rope_embeddings_cos: length frequency
    ~rope_embeddings_sin: length frequency
ShiftedRMSNormalization
    scale weight: channel
SigLIPHead
    logit_scale:
    logit_bias:
SigLIPTextEmbedding SigLIPVisionEmbedding
    ~position_ids: 1 length
T5MultiHeadAttention
    embeddings relative_attention_bias.weight: bucket head
VectorQuantizerEMA
    ~embeddings weight: code embed
    ~ema_cluster_size: code
    ~ema_w: code embed
VideoPrismAttenTokenPoolingLayer
    pooling_attention_query: query channel
VideoPrismClassToken
    cls_token: 1 1 channel
VideoPrismPerDimScale
    per_dim_scale: key
ViTPatchingAndEmbedding
    class_token: 1 1 channel
AddPositionalEmbedding
    pos_embed: 1 height width channel
AddRelativePositionalEmbedding
    rel_pos_h: height key
    rel_pos_w: width key
WindowAttention
    relative_position_bias_table: position head
XLNetAttentionMaskLayer
    mask_emb: 1 1 channel
XLNetEncoder
    content_attention_bias: head key
    positional_attention_bias: head key
    segment_attention_bias: head key
    segment_encoding: segment head key
"""

# A class → the one whose weights it has, under other names.
LIKE: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            *("Gemma3nRMSNorm", "Gemma4FrozenNorm", "GptOssLayerNormalization", "LlamaLayerNorm"),
            *("MistralLayerNormalization", "MixtralLayerNormalization", "Phi3LayerNorm"),
            *("Qwen3LayerNorm", "Qwen3MoeLayerNorm", "QwenLayerNorm", "QwenMoeLayerNorm"),
            *("RmsNorm2d", "RoformerNorm", "T5LayerNorm"),
        ),
        "RMSNormalization",
    ),
    **dict.fromkeys(("EdRecRMSNormalization", "Qwen3_5LayerNorm"), "ShiftedRMSNormalization"),
    **dict.fromkeys(("DINOV2LayerScale", "DINOV3LayerScale", "LayerScale2d"), "LayerScale"),
    "AdjustablePositionEmbedding": "PositionEmbedding",
    **dict.fromkeys(
        ("CachedMultiHeadAttention", "MoonshineMultiHeadAttention"), "MultiHeadAttention"
    ),
}

# What a module must do beside holding the weights.
HINTS: Final[Mapping[str, Mapping[str, Any]]] = {
    # Of Gemma, EdRec and Qwen3.5: the values are multiplied by 1 + scale.
    "ShiftedRMSNormalization": {"scale_offset": 1.0},
}
