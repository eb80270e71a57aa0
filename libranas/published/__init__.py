"""Published tables: those of benchmarks, ours among them, and those that the paper prints."""

from libranas.published.transformers import vit_six, vit_six_layers, vit_six_trainings

__all__ = ["vit_six", "vit_six_layers", "vit_six_trainings"]
