"""What jacov and EPE-NAS share."""

#: What keeps logarithm and reciprocal finite in jacov and epe_nas.
K = 1e-5
CONSTANT_ROW = "the gradient of the logits is the same at all pixels of an image, so its correlations are undefined"
