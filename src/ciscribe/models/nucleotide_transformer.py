"""Nucleotide Transformer (first generation): a masked language model of 6-base tokens, for published weights only.

Dalla-Torre et al., "Nucleotide Transformer: building and evaluating robust foundation models for human genomics",
Nature Methods 2024, doi:10.1038/s41592-024-02523-z; instadeepai/nucleotide-transformer (weights CC BY-NC-SA 4.0).
The network is ``EsmForMaskedLM`` of the transformers library, built from ``config.json`` alone: no code of a
checkpoint is ever run. The second generation (v2) brings its own code and is refused.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ciscribe.errors import CheckpointError, DependencyError, SchemaError

K = 6
_UNKNOWN, _MASK, _CLS = "<unk>", "<mask>", "<cls>"


def standard_vocabulary() -> list[str]:
    """The 4,105 tokens of the first generation in their order: special, 6-mers (A T C G, last base fastest), bases."""
    kmers = ["".join(kmer) for kmer in product("ATCG", repeat=K)]
    return [_UNKNOWN, "<pad>", _MASK, _CLS, *kmers, "A", "T", "C", "G", "N"]


class NucleotideTransformer(nn.Module):
    """`EsmForMaskedLM` behind the model contract of ciscribe.

    Parameters
    ----------
    config
        Content of the checkpoint's ``config.json``.
    vocabulary
        Tokens in order (``vocab.txt``); None is `standard_vocabulary`.

    Raises
    ------
    DependencyError
        Without the transformers library.
    CheckpointError
        When the checkpoint needs code of its own, or the vocabulary does not have its size.
    """

    causal: ClassVar = False

    def __init__(self, config: dict[str, Any], vocabulary: Sequence[str] | None = None):
        super().__init__()
        if config.get("auto_map"):
            raise CheckpointError(
                f"this checkpoint runs code of its own (auto_map: {', '.join(sorted(config['auto_map']))}), which "
                "ciscribe never executes; use a first-generation Nucleotide Transformer (500m-human-ref, 500m-1000g, "
                "2.5b-1000g, 2.5b-multi-species)")
        try:
            from transformers import EsmConfig, EsmForMaskedLM
        except ImportError as error:
            raise DependencyError.of("transformers", "hub", "the Nucleotide Transformer") from error
        vocabulary = list(vocabulary or standard_vocabulary())
        size = config.get("vocab_size")
        if size != len(vocabulary):
            raise CheckpointError(f"the checkpoint has {size} tokens, the vocabulary {len(vocabulary)}; put the "
                                  "checkpoint's vocab.txt beside its config.json")
        lacking = [token for token in (_UNKNOWN, _MASK, _CLS, *"ACGTN", "A" * K, "T" * K) if token not in vocabulary]
        if lacking:
            raise CheckpointError(f"the vocabulary has no token {lacking[0]!r} ({len(lacking)} lacking); the "
                                  "Nucleotide Transformer has 6-mers, single bases and special tokens in <>")
        settings = EsmConfig(**config)
        self.network = EsmForMaskedLM(settings)
        del self.network.esm.contact_head  # for proteins; some checkpoints have it, some do not
        padding = settings.pad_token_id or 0
        self.max_tokens = settings.max_position_embeddings - padding - 1  # positions begin after the padding's
        index = {token: i for i, token in enumerate(vocabulary)}
        self._cls, self._mask = index[_CLS], index[_MASK]
        self.base_tokens = tuple(index[base] for base in "ACGT")
        self._n = index["N"]
        self.unscored_tokens = (index[_UNKNOWN], self._n)
        kmers = [index.get("".join(kmer), index[_UNKNOWN]) for kmer in product("ACGT", repeat=K)]
        self.register_buffer("_kmers", torch.tensor(kmers), persistent=False)

    def tokens(self, X: Float[Tensor, "B 4 L"]) -> Int64[Tensor, "B n_tokens"]:
        """Tokens of the sequences: 6-mers from the left, then single bases for the rest.

        Difference from the published tokenizer: a 6-mer with an N is one unknown token instead of six single bases, so
        that all sequences of a batch have equally many tokens.
        """
        codes = torch.where(X.sum(dim=1) > 0, X.argmax(dim=1), 4)
        n_kmers = codes.shape[1] // K
        words = codes[:, :n_kmers * K].view(len(codes), n_kmers, K)
        powers = 4 ** torch.arange(K - 1, -1, -1, device=X.device)
        kmers = self._kmers[(words.clamp(max=3) * powers).sum(dim=2)]  # type: ignore[index]
        kmers = torch.where((words == 4).any(dim=2), self.unscored_tokens[0], kmers)
        singles = torch.tensor([*self.base_tokens, self._n], device=X.device)[codes[:, n_kmers * K:]]
        return torch.cat([kmers, singles], dim=1)

    def forward(self, X: Float[Tensor, "B 4 L"], mask: Bool[Tensor, "B n_tokens"] | None = None) -> dict[str, Tensor]:
        """Read sequences; the class token in front is added here and left out of what is returned.

        Parameters
        ----------
        X
            One-hot sequences. Tokens are looked up, so no gradient reaches them.
        mask
            True hides a token.

        Returns
        -------
        dict
            ``"logits"`` ``(B, vocab, n_tokens)``, ``"embedding"`` ``(B, d, n_tokens)`` of the last layer.
        """
        ids = self.tokens(X)
        if mask is not None:
            ids = torch.where(mask, self._mask, ids)
        ids = torch.cat([ids.new_full((len(ids), 1), self._cls), ids], dim=1)
        if ids.shape[1] > self.max_tokens:
            raise SchemaError(f"the model reads {self.max_tokens - 1:,} tokens (6 bp each); got {ids.shape[1] - 1:,}; "
                              f"trim the sequences to {(self.max_tokens - 1) * K:,} bp")
        hidden = self.network.esm(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        logits = self.network.lm_head(hidden)
        return {"logits": logits[:, 1:].transpose(1, 2), "embedding": hidden[:, 1:].transpose(1, 2)}


def convert_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published checkpoint to those of `NucleotideTransformer`.

    Buffers and the head for protein contacts are left out; a head that was not saved because it is tied to the
    embedding is put back.
    """
    tied, head = "esm.embeddings.word_embeddings.weight", "lm_head.decoder.weight"
    if tied in state and head not in state:
        state = state | {head: state[tied]}
    left_out = ("position_ids", "inv_freq")
    return {f"network.{name}": tensor for name, tensor in state.items()
            if not name.endswith(left_out) and ".contact_head." not in name}
