"""Push an exported network to the Hugging Face hub."""

from pathlib import Path

from libranas.core.errors import LibranasError
from libranas.export.timm import load_folder


def push(folder: Path, repository: str) -> str:
    """Upload an exported folder to a private repository (``USER/NAME``, made if it is missing); returns its address.

    Besides this, only the weights of a teacher (``libranas train``) come over the network. The account is that of
    ``hf auth login``.
    """
    from huggingface_hub import HfApi

    load_folder(folder)
    try:
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Upload from libranas")
    except Exception as error:  # the client has many of its own
        raise LibranasError(
            f"{folder} was not uploaded to {repository}: {error}.",
            "Log in with `hf auth login`, and name a repository of yours: USER/NAME.",
        ) from error
    return f"https://huggingface.co/{repository}"
