"""Which layers KerasHub's classes keep in which attributes.

A class at the margin, or several that keep the same; below them, what they hold and in which
attributes, leading underscores left out. An `EinsumDense` has its equation, and `...` is the one
that its owner was given. `*` are lists and dicts, whose groups Keras names after classes. Classes
of one name in several models are called by their folder too, and who holds them says which it is,
by the name of the group where it is in a container. Where it depends on an option, an attribute has
several lines, and the stored tensors decide.

Sources: `keras_hub/src` of KerasHub 0.32.
"""

from __future__ import annotations

from typing import Final

__all__ = ["TABLE"]

TABLE: Final = """
AdaptiveLayerNormalization
    Dense dense
    LayerNormalization norm
Attention2d
    Conv2D proj qkv
BLIP2CustomOPT
    EinsumDense(btd,df->btf) einsum_dense
BLIP2OPTEmbeddings
    Embedding position_embedding
    ReversibleEmbedding token_embedding
BloomAttention
    Dense output_dense
    EinsumDense(bsm,mnh->bsnh) key_dense value_dense
    EinsumDense(btm,mnh->btnh) query_dense
BloomDecoder
    BloomAttention self_attention_layer
    Dense mlp_intermediate_dense mlp_output_dense
    LayerNormalization post_attention_layernorm pre_attention_layernorm
CachedGemma3Attention
    EinsumDense(bsd,kdh->bskh) key_dense value_dense
    EinsumDense(btd,ndh->btnh) query_dense
    EinsumDense(btnh,nhd->btd) output_dense
    ShiftedRMSNormalization key_norm query_norm
CachedGemmaAttention
    EinsumDense(bsd,kdh->bskh) key_dense value_dense
    EinsumDense(btd,ndh->btnh) query_dense
    EinsumDense(btnh,nhd->btd) output_dense
CachedMistralAttention CachedMixtralAttention GptOssAttention LlamaAttention Phi3Attention
QwenAttention QwenMoeAttention
    EinsumDense(bkm,mvh->bkvh) key_dense value_dense
    EinsumDense(bqm,muh->bquh) query_dense
    EinsumDense(bquh,uhm->bqm) output_dense
CBABlock
    BatchNormalization bn1
    Conv2D conv1
CLIPEncoderLayer MetaCLIP2EncoderLayer
    Dense dense_1 dense_2
    LayerNormalization layer_norm_1 layer_norm_2
    MultiHeadAttention attention
CLIPProjection DeiTIntermediate DeiTOutput Gemma4ClippableDense
    Dense dense
CLIPTextEncoder CLIPVisionEncoder MetaCLIP2TextEncoder MetaCLIP2VisionEncoder SigLIPTextEncoder
SigLIPVisionEncoder
    * encoder_layers
CLIPVisionEmbedding Gemma3VisionEmbedding MetaCLIP2VisionEmbedding PaliGemmaVitEmbeddings
SigLIPVisionEmbedding ViTPatchingAndEmbedding
    Conv2D patch_embedding
    Embedding position_embedding
CondConvResidual
    BatchNormalization bn1 bn2 bn3
    Dense routing_fn
    * conv_dw_experts conv_pw_experts conv_pwl_experts
ContentAndQueryEmbedding
    Embedding word_embed
Conv2DMultiHeadAttention
    Conv2D key_conv2d output_conv2d query_conv2d value_conv2d
    GroupNormalization group_norm
ConvBnActBlock
    BatchNormalization batch_normalization
    Conv2D conv
ConvNormAct
    BatchNormalization norm
    Conv2D conv
    LayerNormalization norm
    RMSNormalization norm
DeiTEmbeddings stable_diffusion_3/PatchEmbedding
    Conv2D patch_embedding
DeiTEncoder VideoPrismEncoder ViTEncoder
    LayerNormalization layer_norm
    * encoder_layers
DeiTEncoderBlock
    DeiTIntermediate mlp
    DeiTOutput output_layer
    LayerNormalization layer_norm_1 layer_norm_2
    MultiHeadAttention mha
DepthAnythingBackbone
    DINOV2Backbone image_encoder
DepthAnythingDepthEstimationHead
    Conv2D conv1 conv2 conv3
DepthAnythingFeatureFusionLayer
    Conv2D projection
    DepthAnythingPreActResidualLayer residual_layer1 residual_layer2
DepthAnythingNeck
    * convs fusion_stage reassemble_stage
DepthAnythingPreActResidualLayer
    Conv2D convolution1 convolution2
DepthAnythingReassembleLayer
    Conv2D projection resize
    Conv2DTranspose resize
DepthwiseConvBlock
    BatchNormalization batch_normalization1 batch_normalization2
    Conv2D conv1 conv2
    SqueezeAndExcite2D se_layer
DFineConvNormLayer
    BatchNormalization normalization
    Conv2D convolution
DFineCSPRepLayer
    DFineConvNormLayer conv1 conv2 conv3
    * bottleneck_layers
DFineDecoder
    DFineMLP pre_bbox_head
    DFineMLPPredictionHead query_pos_head
    * bbox_embed class_embed decoder_layers lqe_layers
DFineDecoderLayer
    DFineGate gateway
    DFineMultiheadAttention self_attn
    DFineMultiscaleDeformableAttention encoder_attn
    Dense fc1 fc2
    LayerNormalization final_layer_norm self_attn_layer_norm
DFineEncoder
    * encoder_layer
DFineEncoderLayer
    DFineMultiheadAttention self_attn
    Dense fc1 fc2
    LayerNormalization final_layer_norm self_attn_layer_norm
DFineFeatureAggregationBlock
    DFineCSPRepLayer csp_rep1 csp_rep2
    DFineConvNormLayer conv1 conv2 conv3 conv4
DFineGate
    Dense gate
    LayerNormalization norm
DFineHybridEncoder
    * downsample_convs encoder fpn_blocks lateral_convs pan_blocks
DFineInitialQueryAndReferenceGenerator
    Embedding weight_embedding
DFineLQE
    DFineMLP reg_conf
DFineMLP DFineMLPPredictionHead
    * dense_layers
DFineMultiheadAttention
    EinsumDense(abc,cd->abd) out_proj
    EinsumDense(abc,cde->abde) k_proj q_proj v_proj
DFineMultiscaleDeformableAttention
    EinsumDense(abc,cde->abde) attention_weights
    EinsumDense(abc,cdef->abdef) sampling_offsets
DFineRepVggBlock
    DFineConvNormLayer conv1_layer conv2_layer
DFineSCDown
    DFineConvNormLayer conv1 conv2
DINOV2Attention
    MultiHeadAttention attention
DINOV2Embedding
    DINOV2PatchEmbedding patch_embeddings
DINOV2Layer
    DINOV2Attention attention
    DINOV2MLP mlp
    DINOV2SwiGLUFFN mlp
    LayerNormalization norm1 norm2
    LayerScale layer_scale1 layer_scale2
DINOV2MLP Qwen3_5VisionMLP SAM3MLP SigLIPMLP swin_transformer/MLP
    Dense fc1 fc2
DINOV2PatchEmbedding DINOV3PatchEmbedding SAM3PatchEmbedding ViTDetPatchingAndEmbedding
    Conv2D projection
DINOV2SwiGLUFFN
    Dense weights_in weights_out
DINOV3Attention
    Dense key_dense output_dense query_dense value_dense
DINOV3Embedding
    DINOV3PatchEmbedding patch_embeddings
DINOV3GatedMLP EdRecGatedFeedForward Gemma3nTextMLP SmolLM3MLP T5Gemma2MLP T5GemmaMLP
    Dense down_proj gate_proj up_proj
DINOV3Layer
    DINOV3Attention attention
    DINOV3GatedMLP mlp
    DINOV3MLP mlp
    LayerNormalization norm1 norm2
    LayerScale layer_scale1 layer_scale2
DINOV3MLP
    Dense down_proj up_proj
DisentangledAttentionEncoder
    Dense feedforward_intermediate_dense feedforward_output_dense
    DisentangledSelfAttention self_attention_layer
    LayerNormalization feedforward_layer_norm self_attention_layer_norm
DisentangledSelfAttention
    EinsumDense(abc,cd->abd) output_dense
    EinsumDense(abc,cde->abde) key_dense query_dense value_dense
DismantledBlock
    AdaptiveLayerNormalization ada_layer_norm
    Dense attention_proj attention_proj2 attention_qkv attention_qkv2
    LayerNormalization norm2
    RMSNormalization k_norm k_norm2 q_norm q_norm2
    stable_diffusion_3/MLP mlp
DoubleStreamBlock
    LayerNormalization image_norm1 image_norm2 text_norm1 text_norm2
    Modulation image_mod text_mod
    SelfAttention image_attn text_attn
    Sequential image_mlp text_mlp
EdgeResidual
    ConvNormAct conv_exp conv_pwl
EdRecDecoderBlock
    EdRecGatedFeedForward mlp
    MultiHeadAttention cross_attention self_attention
    ShiftedRMSNormalization pre_cross_attn_norm pre_ffw_norm pre_self_attn_norm
EdRecEncoderBlock
    EdRecGatedFeedForward mlp
    MultiHeadAttention attention
    ShiftedRMSNormalization pre_attention_norm pre_ffw_norm
ESMEncoder
    Dense feedforward_intermediate_dense feedforward_output_dense
    EsmSelfAttention attention_layer
    LayerNormalization attention_norm feedforward_norm
EsmSelfAttention RoformerAttention
    Dense k_dense o_dense q_dense v_dense
FalconAttention
    Dense output_dense
    EinsumDense(bkm,mnh->bknh) key_dense value_dense
    EinsumDense(bqm,mnh->bqnh) query_dense
FalconTransformerDecoder
    Dense dense_4h_to_h dense_h_to_4h
    FalconAttention attention_layer
    LayerNormalization input_layernorm post_attention_layernorm
FeaturePyramid
    * lateral_conv_layers output_conv_layers
FluxBackbone
    stable_diffusion_3/TimestepEmbedding timestep_embedding
FNetEncoder
    Dense intermediate_dense output_dense
    LayerNormalization mixing_layer_norm output_layer_norm
FusedMBConvBlock
    BatchNormalization bn1 bn2
    Conv2D conv1 output_conv se_conv1 se_conv2
Gemma3Backbone GemmaBackbone PaliGemmaBackbone T5Gemma2Backbone T5GemmaBackbone
    ShiftedRMSNormalization rms_normalization
Gemma3DecoderBlock
    CachedGemma3Attention attention
    EinsumDense(btd,df->btf) gating_ffw gating_ffw_2
    EinsumDense(btf,fd->btd) ffw_linear
    ShiftedRMSNormalization post_attention_norm post_ffw_norm pre_attention_norm pre_ffw_norm
Gemma3nAudioAttention
    Dense k_proj q_proj v_proj
    Gemma3nAudioRelativePositionEmbedding relative_position_embedding
Gemma3nAudioConformerAttention
    Dense post
    Gemma3nAudioAttention attn
    RMSNormalization post_norm pre_attn_norm
Gemma3nAudioConformerBlock
    Gemma3nAudioConformerAttention attention
    Gemma3nAudioConformerFeedForward ffw_layer_end ffw_layer_start
    Gemma3nAudioConformerLightConv1d lconv1d
    RMSNormalization norm
Gemma3nAudioConformerFeedForward
    Dense ffw_layer_1 ffw_layer_2
    RMSNormalization post_layer_norm pre_layer_norm
Gemma3nAudioConformerLightConv1d
    Dense linear_end linear_start
    DepthwiseConv1D depthwise_conv1d
    RMSNormalization conv_norm pre_layer_norm
Gemma3nAudioEncoder
    Gemma3nAudioSubSampleConvProjection subsample_conv_projection
    * conformer
Gemma3nAudioRelativePositionEmbedding
    Dense pos_proj
Gemma3nAudioSSCPConvBlock
    Conv2D conv
    Gemma3nAudioCumulativeGroupNorm norm
Gemma3nAudioSubSampleConvProjection
    Dense input_proj_linear
    Gemma3nAudioSSCPConvBlock conv_0 conv_1
    * calculated_block_padding calculated_f_out_dims
Gemma3nMultimodalEmbedder
    Dense embedding_projection
    Embedding embedding
    RMSNormalization embedding_post_projection_norm hard_embedding_norm soft_embedding_norm
Gemma3nMultimodalEmbeddingProcessor
    Gemma3nAudioEncoder audio_encoder
    Gemma3nMultimodalEmbedder embed_audio embed_vision
    Gemma3nTextModel language_model
    MobileNetV5Backbone vision_encoder
Gemma3nTextAltUp
    Dense correction_coefs modality_router prediction_coefs
    RMSNormalization router_norm
Gemma3nTextAttention
    Dense k_proj o_proj q_proj v_proj
    RMSNormalization k_norm q_norm v_norm
Gemma3nTextDecoderBlock
    Dense per_layer_input_gate per_layer_projection
    Gemma3nTextAltUp altup
    Gemma3nTextAttention attention
    Gemma3nTextLaurelBlock laurel
    Gemma3nTextMLP mlp
    RMSNormalization input_layernorm post_attention_layernorm post_feedforward_layernorm
    RMSNormalization post_per_layer_input_norm pre_feedforward_layernorm
Gemma3nTextLaurelBlock
    Dense linear_left linear_right
    RMSNormalization post_laurel_norm
Gemma3nTextModel
    Dense per_layer_model_projection
    Gemma3nTextScaledWordEmbedding embed_tokens embed_tokens_per_layer
    RMSNormalization final_normalization per_layer_projection_norm
    * altup_projections altup_unembed_projections transformer_layers
Gemma3nTextScaledWordEmbedding VideoPrismTemporalEmbedding
    Embedding embedding
Gemma3VisionAttention MultiHeadAttentionWithDownsampling PaliGemmaVitAttention
    Dense key_proj out_proj query_proj value_proj
Gemma3VisionEncoderBlock
    Gemma3VisionEmbedding vision_embeddings
    LayerNormalization encoder_layer_norm
    * resblocks
Gemma3VisionEncoderLayer
    Dense mlp_dense_1 mlp_dense_2
    Gemma3VisionAttention attn
    LayerNormalization layer_norm_1 layer_norm_2
Gemma3VisionOutput
    Dense vision_input_projection
    ShiftedRMSNormalization vision_soft_embedding_norm
Gemma4AudioAttention
    Gemma4AudioRelativePositionEmbedding rpe
    Gemma4ClippableDense k_proj q_proj v_proj
Gemma4AudioConformerAttention
    Gemma4AudioAttention attn
    Gemma4ClippableDense out_proj
    RMSNormalization post_norm pre_attn_norm
Gemma4AudioConformerBlock
    Gemma4AudioConformerAttention attention
    Gemma4AudioConformerFeedForward ffw_end ffw_start
    Gemma4AudioConformerLightConv1d lconv
    RMSNormalization norm
Gemma4AudioConformerFeedForward
    Gemma4ClippableDense ffw_1 ffw_2
    RMSNormalization post_norm pre_norm
Gemma4AudioConformerLightConv1d
    DepthwiseConv1D depthwise_conv
    Gemma4ClippableDense linear_end linear_start
    RMSNormalization conv_norm pre_norm
Gemma4AudioEncoder
    Dense audio_output_projection output_proj
    Gemma4AudioSubSampleConvProjection subsample_conv_projection
    * conformer_blocks
Gemma4AudioSSCPConvBlock
    Conv2D conv
    LayerNormalization norm
Gemma4AudioSubSampleConvProjection
    Dense input_proj
    Gemma4AudioSSCPConvBlock conv_0 conv_1
Gemma4Backbone SmolLM3Backbone
    RMSNormalization rms_normalization
Gemma4ClippableEinsumDense
    EinsumDense(...) dense
Gemma4Router
    Dense proj
Gemma4TextAttention
    EinsumDense(bsd,kdh->bskh) key_dense value_dense
    EinsumDense(btd,ndh->btnh) query_dense
    EinsumDense(btnh,nhd->btd) output_dense
    RMSNormalization key_norm query_norm
Gemma4TextDecoderBlock
    Dense per_layer_input_gate per_layer_up_proj
    EinsumDense(btd,df->btf) gating_ffw gating_ffw_2
    EinsumDense(btf,fd->btd) ffw_linear
    Gemma4MoEBlock moe_expert_bank
    Gemma4Router moe_router
    Gemma4TextAttention attention
    RMSNormalization post_attention_norm post_ffw_norm post_ffw_norm_dense post_ffw_norm_moe_path
    RMSNormalization post_per_layer_input_norm pre_attention_norm pre_ffw_norm pre_ffw_norm_moe
Gemma4VisionAttention
    Gemma4ClippableEinsumDense(bsd,kdh->bskh) key_dense value_dense
    Gemma4ClippableEinsumDense(bsd,qdh->bsqh) query_dense
    Gemma4ClippableEinsumDense(btnh,nhd->btd) output_dense
    RMSNormalization key_norm query_norm
Gemma4VisionDecoderBlock
    Gemma4ClippableEinsumDense(btd,df->btf) gating_ffw gating_ffw_2
    Gemma4ClippableEinsumDense(btf,fd->btd) ffw_linear
    Gemma4VisionAttention attention
    RMSNormalization post_attention_norm post_ffw_norm pre_attention_norm pre_ffw_norm
Gemma4VisionEncoderBlock
    Gemma4VisionPatchEmbedder patch_embedder
    * encoder_blocks
Gemma4VisionOutput
    Dense vision_input_projection
Gemma4VisionPatchEmbedder
    Dense input_proj
GemmaDecoderBlock
    CachedGemmaAttention attention
    EinsumDense(btd,df->btf) gating_ffw gating_ffw_2
    EinsumDense(btf,fd->btd) ffw_linear
    ShiftedRMSNormalization post_attention_norm post_ffw_norm pre_attention_norm pre_ffw_norm
GPTNeoXAttention
    EinsumDense(abc,cd->abd) output_dense
    EinsumDense(abc,cde->abde) qkv_dense
GPTNeoXDecoder
    Dense feedforward_intermediate_dense feedforward_output_dense
    GPTNeoXAttention self_attention_layer
    LayerNormalization feedforward_layer_norm self_attention_layer_norm
GptOssSparseMoeBlock
    GptOssExperts experts
    GptOssTopKRouter router
GptOssTopKRouter
    Dense router_dense
GptOssTransformerDecoder
    GptOssAttention self_attention_layer
    GptOssSparseMoeBlock sparse_moe_block
    RMSNormalization input_layernorm post_attention_layernorm
HGNetV2BasicLayer
    HGNetV2ConvLayer aggregation_excitation_conv aggregation_squeeze_conv
    * layer_list
HGNetV2ConvLayer
    BatchNormalization normalization
    Conv2D convolution
    HGNetV2LearnableAffineBlock lab
HGNetV2ConvLayerLight
    HGNetV2ConvLayer conv1_layer conv2_layer
HGNetV2Embeddings
    HGNetV2ConvLayer stem1_layer stem2a_layer stem2b_layer stem3_layer stem4_layer
HGNetV2Encoder
    * stages_list
HGNetV2Stage
    HGNetV2ConvLayer downsample_layer
    * blocks_list
HierarchicalTransformerEncoder
    LayerNormalization norm1 norm2
    MixFFN mlp
    SegFormerMultiheadAttention attn
InvertedResidualBlock
    BatchNormalization batch_normalization1 batch_normalization2 batch_normalization3
    Conv2D conv1 conv2 conv3
    SqueezeAndExcite2D squeeze_excite
LastLayer
    Dense linear
    LayerNormalization norm_final
    Sequential adaLN_modulation
LlamaTransformerDecoder
    Dense feedforward_gate_dense feedforward_intermediate_dense feedforward_output_dense
    LlamaAttention self_attention_layer
    RMSNormalization feedforward_layernorm self_attention_layernorm
MaskedLMHead
    Dense intermediate_dense
    LayerNormalization intermediate_layer_norm
MBConvBlock
    BatchNormalization bn1 bn2 bn3
    Conv2D conv1 output_conv se_conv1 se_conv2
    DepthwiseConv2D depthwise
MistralTransformerDecoder
    CachedMistralAttention self_attention_layer
    Dense feedforward_gate_dense feedforward_intermediate_dense feedforward_output_dense
    RMSNormalization feedforward_layernorm self_attention_layernorm
MixFFN
    Dense fc1 fc2
    DepthwiseConv2D dwconv
MixtralSparseMoeBlock
    Dense sparse_feedforward_gate_dense
    MixtralMoeExperts expert_bank
MixtralTransformerDecoder
    CachedMixtralAttention self_attention_layer
    MixtralSparseMoeBlock sparse_moe_block
    RMSNormalization feedforward_layernorm self_attention_layernorm
MLPEmbedder
    Dense input_layer output_layer
MMDiT
    AdaptiveLayerNormalization output_ada_layer_norm
    Dense context_embedding output_dense
    stable_diffusion_3/MLP mlp vector_embedding
    stable_diffusion_3/PatchEmbedding patch_embedding
    stable_diffusion_3/TimestepEmbedding timestep_embedding
    * joint_blocks
MMDiTBlock
    DismantledBlock context_block x_block
MobileAttention
    Attention2d attn
    BatchNormalization norm
    DepthwiseConv2D conv_cpe_dw
    LayerScale layer_scale
    MultiQueryAttention2d attn
    RMSNormalization norm
MobileNetV5MultiScaleFusionAdapter
    BatchNormalization norm
    RMSNormalization norm
    UniversalInvertedResidual ffn
Modulation
    Dense linear_projection
MoonshineBackbone
    LayerNormalization(center=false) layer_normalization
MoonshineDecoderBlock
    LayerNormalization(center=false) norm1 norm2 norm3
    MoonshineMLP ff
    MultiHeadAttention cross_attention self_attention
MoonshineEncoderBlock
    LayerNormalization(center=false) feedforward_layer_norm self_attention_layer_norm
    MoonshineMLP feedforward
    MultiHeadAttention self_attention_layer
MoonshineMLP VideoPrismMLP vit/MLP
    Dense dense_1 dense_2
MultiHeadAttentionPooling
    LayerNormalization layer_norm
    MultiHeadAttention mha
    Sequential mlp_block
MultiHeadAttentionWithRelativePE
    AddRelativePositionalEmbedding add_decomposed_relative_pe
    Dense projection qkv
MultiQueryAttention2d
    * key_layers output_proj_layers query_layers value_layers
OverlappingPatchingAndEmbedding swin_transformer/PatchEmbedding
    Conv2D proj
    LayerNormalization norm
PaliGemmaDecoderBlock
    CachedGemmaAttention attention
    EinsumDense(btd,df->btf) gating_ffw gating_ffw_2
    EinsumDense(btf,fd->btd) ffw_linear
    ShiftedRMSNormalization pre_attention_norm pre_ffw_norm
PaliGemmaVitEncoder
    LayerNormalization encoder_layer_norm
    PaliGemmaVitEmbeddings vision_embeddings
    * resblocks
PaliGemmaVitEncoderBlock
    Dense mlp_dense_1 mlp_dense_2
    LayerNormalization layer_norm_1 layer_norm_2
    PaliGemmaVitAttention attn
PARSeqDecoder
    Embedding token_embedding
    LayerNormalization layer_norm
    * decoder_layers
PARSeqDecoderBlock
    LayerNormalization content_layer_norm layer_norm_1 layer_norm_2 query_layer_norm
    MultiHeadAttention cross_attention self_attention
    vit/MLP mlp
PatchMerging
    Dense reduction
    LayerNormalization norm
Phi3Decoder
    Dense feedforward_gate_dense feedforward_intermediate_dense feedforward_output_dense
    Phi3Attention attention
    RMSNormalization post_attention_layernorm pre_attention_layernorm
PredictionHead
    Conv2D prediction_layer
    * conv_layers group_norm_layers
QFormerAttention
    LayerNormalization layer_norm
    MultiHeadAttention attention
QFormerLayer
    Dense intermediate_dense output_dense
    LayerNormalization output_layer_norm
    QFormerAttention cross_attention self_attention
QKNorm
    RMSNormalization key_norm query_norm
Qwen3_5Attention
    EinsumDense(bkm,mvh->bkvh) key_dense value_dense
    EinsumDense(bqm,muh->bquh) query_dense
    EinsumDense(bquh,uhm->bqm) output_dense
    ShiftedRMSNormalization key_norm query_norm
Qwen3_5Backbone Qwen3_5MoeBackbone
    ShiftedRMSNormalization qwen3_5_layer_norm
Qwen3_5GatedDeltaNet
    Dense in_proj_a in_proj_b in_proj_qkv in_proj_z out_proj
    Qwen3_5RMSNormGated norm
Qwen3_5MoeMLP Qwen3MoeMLP QwenMoeMLP
    Dense feedforward_gate_dense feedforward_intermediate_dense feedforward_output_dense
Qwen3_5MoeSparseMoeBlock
    Dense router_gate shared_expert_gate
    Qwen3_5MoeExperts expert_bank
    Qwen3_5MoeMLP shared_expert
Qwen3_5MoeTransformerDecoder
    Qwen3_5Attention self_attention_layer
    Qwen3_5GatedDeltaNet linear_attn
    Qwen3_5MoeSparseMoeBlock mlp
    ShiftedRMSNormalization input_layernorm post_attention_layernorm
Qwen3_5TransformerDecoder
    Dense feedforward_gate_dense feedforward_intermediate_dense feedforward_output_dense
    Qwen3_5Attention self_attention_layer
    Qwen3_5GatedDeltaNet linear_attn
    ShiftedRMSNormalization input_layernorm post_attention_layernorm
Qwen3_5VisionAttention WindowAttention
    Dense proj qkv
Qwen3_5VisionBlock
    LayerNormalization norm1 norm2
    Qwen3_5VisionAttention attn
    Qwen3_5VisionMLP mlp
Qwen3_5VisionEncoder
    * blocks
Qwen3_5VisionPatchEmbed
    Conv3D proj
Qwen3_5VisionPatchMerger
    Dense fc1 fc2
    LayerNormalization norm
Qwen3Attention Qwen3MoeAttention
    EinsumDense(bkm,mvh->bkvh) key_dense value_dense
    EinsumDense(bqm,muh->bquh) query_dense
    EinsumDense(bquh,uhm->bqm) output_dense
    RMSNormalization key_dense_layer_norm query_dense_layer_norm
Qwen3MoeTransformerDecoder
    Qwen3MoeAttention self_attention_layer
    Qwen3MoeMLP mlp
    Qwen3SparseMoeBlock mlp
    RMSNormalization feedforward_layernorm self_attention_layernorm
Qwen3SparseMoeBlock
    Dense sparse_feedforward_gate_dense
    Qwen3MoeExperts expert_bank
Qwen3TransformerDecoder
    Dense feedforward_gate_dense feedforward_intermediate_dense feedforward_output_dense
    Qwen3Attention self_attention_layer
    RMSNormalization feedforward_layernorm self_attention_layernorm
QwenMoeTransformerDecoder
    QwenMoeAttention self_attention_layer
    QwenMoeMLP mlp
    QwenSparseMoeBlock mlp
    RMSNormalization feedforward_layernorm self_attention_layernorm
QwenSparseMoeBlock
    Dense shared_expert_gate_dense sparse_feedforward_gate_dense
    QwenMoeExperts expert_bank
    QwenMoeMLP shared_expert_dense
QwenTransformerDecoder
    Dense feedforward_gate_dense feedforward_intermediate_dense feedforward_output_dense
    QwenAttention self_attention_layer
    RMSNormalization feedforward_layernorm self_attention_layernorm
RelativeEmbedding
    LayerNormalization layer_norm
ResNetBlock
    Conv2D conv1 conv2 residual_projection
    GroupNormalization norm1 norm2
RoformerV2Encoder
    Dense feedforward_intermediate_dense feedforward_output_dense
    RMSNormalization attention_norm feedforward_norm
    RoformerAttention attention_layer
RWKV7_Block
    LayerNormalization ln0 ln1 ln2
    RWKV7ChannelMix ffn
    RWKV7TimeMix att
RWKV7ChannelMix
    Dense key value
RWKV7TimeMix
    Dense key output_layer receptance value
    GroupNormalization ln_x
sam/MLP
    * mlp_block
SAM3Attention SAM3RoPEAttention
    Dense k_proj o_proj q_proj v_proj
SAM3DecoderMLP
    Dense layer1 layer2 layer3
SAM3DetrDecoder
    Embedding presence_token query_embed reference_points
    LayerNormalization output_layer_norm presence_layer_norm
    SAM3DecoderMLP box_head box_rpb_embed_x box_rpb_embed_y presence_head ref_point_head
SAM3DetrDecoderLayer
    LayerNormalization mlp_layer_norm self_attn_layer_norm text_cross_attn_layer_norm
    LayerNormalization vision_cross_attn_layer_norm
    SAM3Attention self_attn text_cross_attn vision_cross_attn
    SAM3MLP mlp
SAM3DetrEncoderLayer SAM3GeometryEncoderLayer
    LayerNormalization layer_norm1 layer_norm2 layer_norm3
    SAM3Attention cross_attn self_attn
    SAM3MLP mlp
SAM3DotProductScoring
    Dense query_proj text_proj
    LayerNormalization text_mlp_out_norm
    SAM3DecoderMLP text_mlp
SAM3Embedding
    SAM3PatchEmbedding patch_embeddings
SAM3FPNLayer
    Conv2D proj1 proj2
    * scale_layers
SAM3GeometryEncoder
    Conv2D boxes_pool_project
    Dense boxes_direct_project boxes_pos_enc_project final_proj
    Embedding cls_embed label_embed
    LayerNormalization output_layer_norm prompt_layer_norm vision_layer_norm
SAM3MaskDecoder
    Conv2D instance_projection semantic_projection
    LayerNormalization prompt_cross_attn_norm
    SAM3Attention prompt_cross_attn
    SAM3MaskEmbedder mask_embedder
    SAM3PixelDecoder pixel_decoder
SAM3PixelDecoder
    * conv_layers norms
SAM3PromptableConceptBackbone
    SAM3DetrDecoder detr_decoder
    SAM3DetrEncoder detr_encoder
    SAM3GeometryEncoder geometry_encoder
    SAM3MaskDecoder mask_decoder
    SAM3TextEncoder text_encoder
    SAM3VisionEncoder vision_encoder
SAM3TextEncoder
    LayerNormalization layer_norm
    TokenAndPositionEmbedding embedding
    * encoder_layers
SAM3VisionEncoder
    SAM3ViTEncoder backbone
    SAM3VisionNeck vision_neck
SAM3VisionNeck
    * fpn_layers
SAM3ViTEncoder
    LayerNormalization layer_norm
    SAM3Embedding embeddings
SAM3ViTLayer
    LayerNormalization layer_norm1 layer_norm2
    SAM3MLP mlp
    SAM3RoPEAttention attention
    SAM3ViTRotaryEmbedding rotary_emb
SAMBackbone
    SAMMaskDecoder mask_decoder
    SAMPromptEncoder prompt_encoder
SAMMaskDecoder
    Embedding iou_token mask_tokens
    Sequential output_upscaling
    TwoWayTransformer transformer
    sam/MLP iou_prediction_head mlp
    * output_hypernetworks_mlps
SAMPromptEncoder
    Embedding background_point_embed bottom_right_corner_embed foreground_point_embed no_mask_embed
    Embedding not_a_point_embed top_left_corner_embed
    RandomFrequencyPositionalEmbeddings positional_embedding_layer
    Sequential mask_downscaler
SegFormerMultiheadAttention
    Conv2D sr
    Dense k proj q v
    LayerNormalization norm
SelfAttention
    Dense proj qkv
    QKNorm norm
SEModule
    BatchNormalization bn
    Conv2D fc1 fc2
SigLIPEncoderLayer
    LayerNormalization layer_norm1 layer_norm2
    MultiHeadAttention self_attn
    SigLIPMLP mlp
SigLIPMultiHeadAttentionPooling
    LayerNormalization layer_norm
    MultiHeadAttention attention
    SigLIPMLP mlp
SigLIPTextEmbedding
    ReversibleEmbedding position_embedding token_embedding
SingleStreamBlock
    Dense linear1 linear2
    LayerNormalization pre_norm
    Modulation modulation
    QKNorm norm
SmolLM3Attention
    Dense k_proj q_proj v_proj
    EinsumDense(bquh,uhm->bqm) o_proj
    SmolLM3RotaryEmbedding rotary_embedding
SmolLM3DecoderLayer
    RMSNormalization input_layernorm post_attention_layernorm
    SmolLM3Attention self_attn
    SmolLM3MLP mlp
SpatialPyramidPooling
    Sequential projection
    * aspp_parallel_channels
SqueezeAndExcite2D
    Conv2D conv_expand conv_reduce
stable_diffusion_3/MLP
    Dense dense1 dense2
stable_diffusion_3/TimestepEmbedding
    stable_diffusion_3/MLP mlp
SwinTransformerBackbone
    swin_transformer/PatchEmbedding patch_embedding
SwinTransformerBlock
    LayerNormalization norm1 norm2
    WindowAttention attn
    swin_transformer/MLP mlp
SwinTransformerStage
    PatchMerging downsample
    * blocks
T5Encoder
    RMSNormalization encoder_layer_norm
    ReversibleEmbedding token_embedding
    * encoder_transformer_layers
T5Gemma2Attention T5Gemma2MergedAttention
    EinsumDense(bsd,dkh->bskh) key_dense value_dense
    EinsumDense(btd,dnh->btnh) query_dense
    EinsumDense(btnh,nhd->btd) output_dense
    ShiftedRMSNormalization key_norm query_norm
T5Gemma2DecoderLayer
    ShiftedRMSNormalization post_feedforward_layernorm post_self_attn_layernorm
    ShiftedRMSNormalization pre_feedforward_layernorm pre_self_attn_layernorm
    T5Gemma2MLP mlp
    T5Gemma2MergedAttention merged_attn
T5Gemma2EncoderLayer
    ShiftedRMSNormalization post_feedforward_layernorm post_self_attn_layernorm
    ShiftedRMSNormalization pre_feedforward_layernorm pre_self_attn_layernorm
    T5Gemma2Attention self_attn
    T5Gemma2MLP mlp
T5GemmaAttention
    EinsumDense(bsd,dkh->bskh) key_dense value_dense
    EinsumDense(btd,dnh->btnh) query_dense
    EinsumDense(btnh,nhd->btd) output_dense
T5GemmaDecoderLayer
    ShiftedRMSNormalization post_cross_attn_layernorm post_feedforward_layernorm
    ShiftedRMSNormalization post_self_attn_layernorm pre_cross_attn_layernorm
    ShiftedRMSNormalization pre_feedforward_layernorm pre_self_attn_layernorm
    T5GemmaAttention cross_attn self_attn
    T5GemmaMLP mlp
T5GemmaEncoderLayer
    ShiftedRMSNormalization post_feedforward_layernorm post_self_attn_layernorm
    ShiftedRMSNormalization pre_feedforward_layernorm pre_self_attn_layernorm
    T5GemmaAttention self_attn
    T5GemmaMLP mlp
T5MultiHeadAttention
    Dense key_projector output_projector query_projector value_projector
T5TransformerLayer
    Dense gate_projector input_projector output_projector
    RMSNormalization cross_attention_layer_norm layer_norm self_attention_layer_norm
    T5MultiHeadAttention cross_attention self_attention
TokenAndPositionEmbedding
    PositionEmbedding position_embedding
    ReversibleEmbedding token_embedding
TransformerDecoder
    Dense feedforward_intermediate_dense feedforward_output_dense
    LayerNormalization cross_attention_layer_norm feedforward_layer_norm self_attention_layer_norm
    MultiHeadAttention cross_attention_layer self_attention_layer
TransformerEncoder
    Dense feedforward_intermediate_dense feedforward_output_dense
    LayerNormalization feedforward_layer_norm self_attention_layer_norm
    MultiHeadAttention self_attention_layer
TwoStreamRelativeAttention
    EinsumDense(abc,cde->abde) encoding_dense key_dense query_dense value_dense
    EinsumDense(ibnd,hnd->ibh) output_dense
TwoWayMultiHeadAttention
    LayerNormalization layer_norm1 layer_norm2 layer_norm3 layer_norm4
    MultiHeadAttentionWithDownsampling cross_attention_image_to_token
    MultiHeadAttentionWithDownsampling cross_attention_token_to_image self_attention
    sam/MLP mlp_block
TwoWayTransformer
    LayerNormalization final_layer_norm
    MultiHeadAttentionWithDownsampling final_attention_token_to_image
UniversalInvertedResidual
    ConvNormAct dw_end dw_mid dw_start pw_exp pw_proj
    LayerScale layer_scale
VAEDecoder
    Conv2D input_projection output_projection
    Conv2DMultiHeadAttention mid_attention
    GroupNormalization output_norm
    ResNetBlock mid_block_0 mid_block_1
    * blocks upsamples
VAEEncoder
    Conv2D input_projection output_projection
    Conv2DMultiHeadAttention mid_attention
    GroupNormalization output_norm
    ResNetBlock mid_block_0 mid_block_1
    * blocks downsamples
VideoPrismAttention
    EinsumDense(btd,dnh->btnh) key_dense query_dense value_dense
    EinsumDense(btnh,nhd->btd) output_dense
    VideoPrismPerDimScale per_dim_scale_layer
VideoPrismAttenTokenPoolingLayer
    LayerNormalization layer_norm
    VideoPrismAttention pooling_attention
VideoPrismEmbedding
    Embedding token_embedding
    VideoPrismClassToken class_token
VideoPrismEncoderBlock
    LayerNormalization layer_norm_1 layer_norm_2
    VideoPrismAttention mha
    VideoPrismMLP mlp
VideoPrismPatchingAndEmbedding
    Dense patch_embedding
    Embedding position_embedding
vit_det/MLP
    * dense_net
ViTEncoderBlock
    LayerNormalization layer_norm_1 layer_norm_2
    MultiHeadAttention mha
    vit/MLP mlp
WhisperCachedMultiHeadAttention
    EinsumDense(abc,cde->abde) key_dense query_dense value_dense
    EinsumDense(abcd,cde->abe) output_dense
WhisperDecoder
    Dense feedforward_intermediate_dense feedforward_output_dense
    LayerNormalization cross_attention_layer_norm feedforward_layer_norm self_attention_layer_norm
    WhisperCachedMultiHeadAttention cross_attention_layer self_attention_layer
WhisperEncoder
    Dense feedforward_intermediate_dense feedforward_output_dense
    LayerNormalization feedforward_layer_norm self_attention_layer_norm
    WhisperCachedMultiHeadAttention self_attention_layer
WindowedTransformerEncoder
    LayerNormalization layer_norm1 layer_norm2
    MultiHeadAttentionWithRelativePE attention
    vit_det/MLP mlp_block
XLNetEncoder
    Dense feedforward_intermediate_dense feedforward_output_dense
    LayerNormalization layer_norm layer_norm_ff
    TwoStreamRelativeAttention relative_attention
"""
