"""Export a trained network: for timm, in other formats, to the Hugging Face hub; with a model card."""
