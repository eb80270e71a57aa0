"""Options of the scoring engine."""

from dataclasses import dataclass
from typing import Literal

from libranas.core.typed import BadSetting, check_fields, setting


@dataclass(frozen=True)
class Options:
    """Settings of a scoring call; recorded with the scores. BadSetting for a value that an option does not take."""

    unit: Literal["auto", "sample", "microbatch"] = setting(
        "What statistics of a gradient run over. auto: samples, but micro-batches where batch normalisation in "
        "training mode couples the samples.",
        "auto",
    )
    pieces: int = setting("Number of micro-batches, at least 4 without `few_units`.", 8, least=2)
    few_units: bool = setting(
        "Allow fewer than 4 units; with 2 the standard deviation of a layer's Lambda over draws is 0.6.", False
    )
    mode: Literal["auto", "train", "eval"] = setting(
        "Mode of the network. auto: train if it has batch normalisation, else eval.", "auto"
    )
    precision: Literal["float32", "float64"] = setting("Precision of passes that do not fix their own.", "float32")
    window: tuple[float, float] | None = setting(
        "(low, high): relative depths low <= depth < high outside of which no layer or activation is looked at; the "
        "work there is not done and the entries of the components are NaN.",
        None,
        least=0,
    )
    features: tuple[str, ...] = setting(
        "Names of modules whose outputs count as primary blocks, for networks that the engine does not know.", ()
    )
    lambda_variance: Literal["abs", "signed"] = setting(
        "Var|g| as Eq. 1 of L-SWAG prints it, or Var g as ZiCo's code and Theorem 1 have it.", "abs"
    )
    lambda_ddof: Literal[0, 1] = setting("Delta degrees of freedom of that variance (`lambda_variance`).", 0)
    lambda_exclude: tuple[str, ...] = setting(
        "Layers that do not count in Lambda, first, last or names; their components stay.", ()
    )
    lambda_pool: Literal["layer", "block"] = setting(
        "Sum over layers of the log, or over blocks of the log of the sum over all weights of the block.", "layer"
    )
    zico_variance: Literal["signed", "abs"] = setting("ZiCo's released code, or its paper.", "signed")
    gsnr_accumulate: bool = setting(
        "Let gradients accumulate over the units, as the released code does by mistake.", False
    )
    gradsign: Literal["sum", "mean"] = setting(
        "Sum or mean over the weights. The paper sums; one of the released scripts takes the mean.", "sum"
    )
    fisher_axis: Literal["channel", "token"] = setting(
        "Of outputs (images, tokens, channels): sum over tokens and keep channels, or the released code's axes, which "
        "are the other way round.",
        "channel",
    )
    fisher_fan_in: bool = setting("Weight each channel by its fan-in, as NASLib does.", True)
    psi_samples: int | None = setting(
        "Samples that make up an activation pattern; null: the whole batch.", None, least=2
    )
    psi_merge: Literal["union", "sum", "log_sum"] = setting(
        "Distinct patterns over all layers; the sum of each layer's, or of its logarithm.", "union"
    )
    lswag_form: Literal["product", "log", "per_layer"] = setting(
        "Lambda x Psi; Lambda + log Psi; Lambda / number of layers x Psi.", "product"
    )
    reg_swap: tuple[float, float] | None = setting(
        "(mu, sigma): target and width of reg-SWAP in thousands of parameters; sigma is not squared (as published).",
        None,
    )
    tcet_saliency: Literal["snip", "synflow"] = setting("Saliency of T-CET.", "snip")
    ntk_images: int | None = setting(
        "The first that many images make the tangent kernel of ntk_cond; null: the whole batch. Through batch "
        "normalisation in training mode the kernel costs a backward an image.",
        None,
        least=1,
    )
    meco_modules: Literal["leaves", "all"] = setting(
        "Feature maps of layers, norms and activations; or of every module, containers too, as released.", "leaves"
    )
    zen_repeats: int = setting("Draws of weights and noise.", 4, least=1)
    synflow_ln: Literal["keep", "identity"] = setting(
        "What happens to LayerNorm in synflow (batch normalisation is always the identity there).", "keep"
    )
    tensor_cores: bool = setting(
        "For a GPU: float32 products as three of float16, moments in a kernel of their own, eigenvalues by products. "
        "Within the tolerances of `docs/precision.md`; not measured yet, so off; slow on a CPU.",
        False,
    )
    noise_batch: int | None = setting(
        "Images of noise for the AZ-NAS proxies and zen; null: as many as in the batch.", None, least=1
    )

    def __post_init__(self):
        check_fields(self, "option ")
        if self.pieces < 4 and not self.few_units:
            raise BadSetting(
                f"option pieces: expected at least 4, got {self.pieces}",
                "With fewer the estimate is heavy-tailed; few_units allows it.",
            )
        if self.window and self.window[0] >= self.window[1]:
            raise BadSetting(f"option window: expected low < high, got {self.window}")
