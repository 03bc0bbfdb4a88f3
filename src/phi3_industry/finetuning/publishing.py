"""An adapter goes to the hub: its checked files and a card, in one commit."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from phi3_industry.finetuning.card import adapter_card
from phi3_industry.models.manifest import MANIFEST_NAME, read_manifest

__all__ = ["push_adapter"]


def push_adapter(
    adapter: str | PathLike[str],
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    endpoint: str | None = None,
    card: str | None = None,
) -> str:
    """Upload an adapter to the hub.

    Every file is checked against the manifest first, and nothing that it does not name is sent.

    Args:
        adapter: The adapter folder.
        repo_id: Where to, as ``"owner/name"``; it is made if it is not there.
        private: Whether a repository that is made is private.
        token: The access token; ``None`` takes the one of ``hf auth login``.
        endpoint: Address of another hub.
        card: The card in place of the generated one, as Markdown.

    Returns:
        The address of the commit.

    Raises:
        AdapterNotFoundError: There is no adapter in the folder.
        AdapterError: The adapter is damaged or has no manifest.
        huggingface_hub.errors.HfHubHTTPError: The hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    folder = Path(adapter)
    manifest = read_manifest(folder)
    text = card if card is not None else adapter_card(manifest, title=repo_id)
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(folder / name))
        for name in sorted([*manifest.files, MANIFEST_NAME])
        if name != "README.md"
    ]
    operations.append(CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=text.encode()))
    api = HfApi(endpoint=endpoint, token=token, library_name="phi3-industry")
    api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.create_commit(
        repo_id,
        operations,
        commit_message=f"Add the {manifest.method} adapter for {manifest.base_model}",
    )
    return str(commit.commit_url)
