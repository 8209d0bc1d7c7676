"""Before and after: what a model answers when its sequence is changed.

`edits` writes changes down and has them predicted, for most networks by recomputing only what a change can reach
(`local`); `mutagenesis` changes every base, `experiments` removes, moves, exchanges and combines longer pieces.
"""
