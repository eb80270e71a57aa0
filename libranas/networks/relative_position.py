"""Relative positions of the tokens of a grid on keys and values (Shaw et al., 2018), in two forms that are equal.

Legend: B images, H heads, N tokens, d head width, T rows of a table, R and C rows and columns of the grid.
"""

import torch
from torch import nn


class RelativePosition(nn.Module):
    """Tables of vertical and horizontal offsets, added together (Shaw et al., 2018, in two dimensions).

    Row 0 belongs to every pair with the class token; row ``1 + max + clamp(offset)`` to the rest.
    """

    def __init__(self, head_dim: int, max_offset: int):
        super().__init__()
        rows = 2 * max_offset + 2
        self.vertical_Td = nn.Parameter(torch.empty(rows, head_dim))
        self.horizontal_Td = nn.Parameter(torch.empty(rows, head_dim))

    def key_logits(self, q_BHNd: torch.Tensor, index_2NN: torch.Tensor) -> torch.Tensor:
        """q . (table[offset]) for all pairs: product with the T rows first, then a gather; shape BHNN."""
        B, H, N, _ = q_BHNd.shape
        return sum(
            (q_BHNd @ table_Td.T).gather(-1, index_NN.expand(B, H, N, N))
            for table_Td, index_NN in zip((self.vertical_Td, self.horizontal_Td), index_2NN, strict=True)
        )

    def mixed_values(self, attn_BHNN: torch.Tensor, index_2NN: torch.Tensor) -> torch.Tensor:
        """sum_m attn[n, m] table[offset(n, m)]: attention summed a row of the table first; shape BHNd."""
        B, H, N, _ = attn_BHNN.shape
        out = 0
        for table_Td, index_NN in zip((self.vertical_Td, self.horizontal_Td), index_2NN, strict=True):
            binned_BHNT = attn_BHNN.new_zeros(B, H, N, len(table_Td))
            binned_BHNT = binned_BHNT.scatter_add(-1, index_NN.expand(B, H, N, N), attn_BHNN)
            out = out + binned_BHNT @ table_Td
        return out

    def between(self, index_2NN: torch.Tensor, columns: int, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Vectors of pairs of rows of the grid (R, R, d), of pairs of columns (C, C, d), of the class token (d,).

        They have the type of `like`, which mixed precision may have made narrower.
        """
        vertical_RRd = self.vertical_Td[index_2NN[0, 1::columns, 1::columns]]
        horizontal_CCd = self.horizontal_Td[index_2NN[1, 1 : columns + 1, 1 : columns + 1]]
        vectors = vertical_RRd, horizontal_CCd, self.vertical_Td[0] + self.horizontal_Td[0]
        return tuple(vector.to(like.dtype) for vector in vectors)


def offset_index(grid: tuple[int, int], max_offset: int) -> torch.Tensor:
    """Row of the vertical and horizontal table for each pair of tokens, the class token first: (2, N, N)."""
    with torch.device("cpu"):  # also in a network without storage it holds numbers
        rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
        index = []
        for position in (rows.flatten(), columns.flatten()):
            offset = (position[None, :] - position[:, None]).clamp(-max_offset, max_offset) + max_offset + 1
            index.append(nn.functional.pad(offset, (1, 0, 1, 0)))
        return torch.stack(index)


def attend_one_hot(
    q_BHNd: torch.Tensor,
    k_BHNd: torch.Tensor,
    v_BHNd: torch.Tensor,
    keys: RelativePosition,
    values: RelativePosition,
    index_2NN: torch.Tensor,
    columns: int,
) -> torch.Tensor:
    """Attention (BHNd) with relative positions, as plain attention of wider heads: no gather, no scatter, no index.

    Keys and values get ones and zeros for their row, their column and the class token, and zeros up to a multiple of 8
    entries, which fused attention asks for (E more entries). Queries get their products with the tables' vectors there.
    What comes out there is the attention to each row and column, which the tables of the values then multiply. Queries
    are scaled already.
    """
    B, H, N, d = q_BHNd.shape
    rows = (N - 1) // columns
    place_NE = _one_hot(rows, columns, q_BHNd)
    spare = place_NE.shape[1] - (rows + columns + 1)
    vertical_RRd, horizontal_CCd, token_d = keys.between(index_2NN, columns, q_BHNd)
    patches_BHRCd = q_BHNd[:, :, 1:].unflatten(2, (rows, columns))
    to_row = torch.einsum("bhrcd,rsd->bhrcs", patches_BHRCd, vertical_RRd)
    to_column = torch.einsum("bhrcd,ced->bhrce", patches_BHRCd, horizontal_CCd)
    to_token = (patches_BHRCd @ token_d)[..., None]
    more_BHNE = torch.cat([to_row, to_column, to_token], -1).flatten(2, 3)
    # All pairs of the class token have the same vector, which a softmax does not see.
    more_BHNE = nn.functional.pad(more_BHNE, (0, spare, 1, 0))
    wide_BHNE = place_NE.expand(B, H, -1, -1)
    out_BHNX = nn.functional.scaled_dot_product_attention(
        torch.cat([q_BHNd, more_BHNE], -1),
        torch.cat([k_BHNd, wide_BHNE], -1),
        torch.cat([v_BHNd, wide_BHNE], -1),
        scale=1.0,
    )
    out_BHNd, seen_BHNE = out_BHNX.split([d, place_NE.shape[1]], -1)
    vertical_RRd, horizontal_CCd, token_d = values.between(index_2NN, columns, q_BHNd)
    seen_BHRCE = seen_BHNE[:, :, 1:].unflatten(2, (rows, columns))
    added = torch.einsum("bhrcs,rsd->bhrcd", seen_BHRCE[..., :rows], vertical_RRd)
    added = added + torch.einsum("bhrce,ced->bhrcd", seen_BHRCE[..., rows : rows + columns], horizontal_CCd)
    added = added + seen_BHRCE[..., rows + columns, None] * token_d
    added_BHNd = torch.cat([token_d.expand(B, H, 1, d), added.flatten(2, 3)], 2)
    return out_BHNd + added_BHNd


def _one_hot(rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
    """Ones where a token has that row, that column, or is the class token, which is first: (N, E)."""
    entries = rows + columns + 1
    place_NE = like.new_zeros(1 + rows * columns, entries + -(entries + like.shape[-1]) % 8)
    place_NE[1:, :rows] = torch.eye(rows, dtype=like.dtype, device=like.device).repeat_interleave(columns, 0)
    place_NE[1:, rows : rows + columns] = torch.eye(columns, dtype=like.dtype, device=like.device).repeat(rows, 1)
    place_NE[0, rows + columns] = 1
    return place_NE
