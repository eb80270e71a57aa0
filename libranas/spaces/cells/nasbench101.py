"""The search space NAS-Bench-101 (Ying et al., ICML 2019): cells that are small graphs with operations at the vertices.

A cell has at most 7 vertices and 9 edges; the first vertex is its input, the last its output, the others carry one of
three operations. :mod:`libranas.networks.nasbench101` describes the network.
"""

import ast
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import prod

import numpy as np

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.typed import setting
from libranas.spaces.cells.base import ConvolutionalSpace, Size, conv_norm, linear
from libranas.spaces.registry import SpaceFamily

#: Most vertices of a cell, input and output included, and most edges.
VERTICES, EDGES = 7, 9
INPUT, OUTPUT = "input", "output"
OPERATIONS = ("maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu")
#: NASLib's tables name a member by the entries of its matrix, row by row, and a code for each vertex.
NASLIB_CODES = (INPUT, OUTPUT, *OPERATIONS)

Matrix = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class NASBench101Space(ConvolutionalSpace):
    """The 423,624 different cells, with the task and the skeleton.

    Parameters
    ----------
    image_size : int or (height, width)
        Divisible by 4.
    width : int
        At least 5.
    port_init : bool
        Initial weights as in the PyTorch port that NASLib scores (nasbench_pytorch), not PyTorch's own; see
        :class:`libranas.networks.nasbench101.NASBench101`.

    Notes
    -----
    Genes: ``matrix``, rows of the upper triangular adjacency matrix; ``ops``, a name for each vertex. Every vertex lies
    on a path from the input to the output: :meth:`arch` removes the others.

    A cell may be written with its vertices in any order that the edges allow, and each of these is a member to
    :meth:`contains`; :meth:`representative` is one of them, and :meth:`size` counts each cell once. The order still has
    one effect. Where C does not divide by the number of vertices that feed the output, the first of them get a channel
    more, so the parameters of isomorphic members may differ a little. The table's sizes belong to the order that it
    prints.
    """

    width: int = setting("Channels of the first cells; the default is published.", default=128)
    cells: int = setting("Cells of a stage; the default is published.", default=3)
    port_init: bool = False

    family = "nasbench101"
    title = "NAS-Bench-101"
    divisor = 4

    def __post_init__(self):
        super().__post_init__()
        if self.width < VERTICES - 2:
            raise LibranasError(
                f"space.width {self.width} is too small: a cell may divide it among {VERTICES - 2} vertices.",
                f"Choose at least {VERTICES - 2}.",
            )

    def arch(self, matrix: Sequence[Sequence[int]], ops: Sequence[str]) -> Arch | None:
        """Return the member that is left of a graph without the vertices on no path from input to output.

        None if it has too many edges or no such path, or is no graph of this kind (see `_is_graph`)."""
        if not _is_graph(matrix, ops):
            return None
        paths = np.linalg.matrix_power(np.array(matrix, int) + np.eye(len(ops), dtype=int), len(ops))
        kept = np.flatnonzero(paths[0] * paths[:, -1])  # none where no path reaches the output
        matrix = tuple(tuple(int(matrix[u][v]) for v in kept) for u in kept)
        if not matrix or sum(map(sum, matrix)) > EDGES:
            return None
        return Arch(self.family, {"matrix": matrix, "ops": tuple(str(ops[v]) for v in kept)})

    def sample(self, rng: np.random.Generator) -> Arch:
        """Draw as the authors do: entries and operations of a graph of 7 vertices at random until it is a member."""
        while True:
            upper = rng.integers(2, size=VERTICES * (VERTICES - 1) // 2)
            arch = self.arch(_square(upper), (INPUT, *rng.choice(OPERATIONS, size=VERTICES - 2), OUTPUT))
            if arch is not None:
                return arch

    def mutate(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """Mutate a graph of 7 vertices as the authors do: an entry flips with probability 1/7, an operation changes
        with probability 1/5, until the result is another member. Vertices that `arch` lacks are put anywhere."""
        while True:
            free = np.sort(rng.permutation(np.arange(1, VERTICES - 1))[: len(arch["ops"]) - 2])
            upper, ops = _in_seven(arch, rng.choice(OPERATIONS, size=VERTICES), (0, *free, VERTICES - 1))
            upper ^= rng.random(len(upper)) < 1 / VERTICES
            for v in range(1, VERTICES - 1):
                if rng.random() < 1 / (VERTICES - 2):
                    ops[v] = rng.choice([op for op in OPERATIONS if op != ops[v]])
            child = self.arch(_square(upper), ops)
            if child not in (None, arch):
                return child

    def cross(self, a: Arch, b: Arch, rng: np.random.Generator) -> Arch:
        """Take each entry of the matrix and each operation from either parent, until the result is a member.

        Parents with fewer than 7 vertices lack the last ones before the output."""
        (upper_a, ops_a), (upper_b, ops_b) = (_in_seven(x, y["ops"][: VERTICES - 1]) for x, y in ((a, b), (b, a)))
        while True:
            upper = np.where(rng.random(len(upper_a)) < 0.5, upper_a, upper_b)
            ops = [x if first else y for x, y, first in zip(ops_a, ops_b, rng.random(VERTICES) < 0.5, strict=True)]
            child = self.arch(_square(upper), ops)
            if child is not None:
                return child

    def contains(self, arch: Arch) -> bool:
        if arch.family != self.family or set(arch.genes) != {"matrix", "ops"}:
            return False
        return self.arch(arch["matrix"], arch["ops"]) == arch

    def representative(self, arch: Arch) -> Arch:
        """Return the same cell with its vertices in the order that makes the matrix, then the operations, smallest."""
        codes = [NASLIB_CODES.index(op) for op in arch["ops"]]
        matrix, moved = min((moved, tuple(codes[v] for v in order)) for order, moved in orders(arch["matrix"]))
        return Arch(self.family, {"matrix": matrix, "ops": tuple(NASLIB_CODES[code] for code in moved)})

    def size(self) -> int:
        """Return the published number of different cells."""
        return 423_624

    def read(self, text: str) -> Arch | None:
        """Read the benchmark's arguments as JSON (``{"matrix": [[...], ...], "ops": ["input", ..., "output"]}``, or
        ``module_adjacency`` and ``module_operations``), the tuple of NASLib's tables, or canonical JSON. Vertices on no
        path from the input to the output are left out."""
        return self.arch(*_read(text.strip()))

    def notation(self) -> str:
        return (
            f'Expected {{"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"]}} with at most {VERTICES} vertices, '
            f"{EDGES} edges and the operations {', '.join(OPERATIONS)}, or NASLib's tuple of matrix and codes."
        )

    def format(self, arch: Arch) -> str:
        """Return JSON of the arguments of the benchmark's ``ModelSpec``: ``{"matrix": ..., "ops": ...}``."""
        return json.dumps({"matrix": arch["matrix"], "ops": arch["ops"]})

    def features(self, arch: Arch) -> dict[str, float]:
        """Describe the representative.

        Vertices, edges and operations, and where they are (in a graph of 7 vertices that lacks the last ones before the
        output); edges at the input and at the output; longest and shortest path in edges. For every operation and for
        the two convolutions together: the most such vertices on a path, and the length of the shortest path without
        others (7: there is none)."""
        arch = self.representative(arch)
        matrix, ops = arch["matrix"], arch["ops"]
        last = len(ops) - 1
        upper, names = _in_seven(arch, [""] * VERTICES)
        out = {"vertices": float(len(ops)), "edges": float(upper.sum())}
        out |= {f"count_{op}": float(ops.count(op)) for op in OPERATIONS}
        for (u, v), entry in zip(zip(*np.triu_indices(VERTICES, 1), strict=True), upper, strict=True):
            out[f"edge_{u}{v}"] = float(entry)
        for v in range(1, VERTICES - 1):
            out |= {f"vertex_{v}_{op}": float(names[v] == op) for op in OPERATIONS}
        out |= {
            "from_input": float(sum(matrix[0])),
            "to_output": float(sum(row[-1] for row in matrix)),
            "skip": float(matrix[0][-1]),
            "longest": _path(matrix, [1] * last, max),
            "shortest": _path(matrix, [1] * last, min),
        }
        for name, kinds in {**{op: {op} for op in OPERATIONS}, "conv": set(OPERATIONS[1:])}.items():
            chosen = [v == 0 or ops[v] in kinds for v in range(last)]
            out[f"most_{name}"] = _path(matrix, [float(v and c) for v, c in enumerate(chosen)], max)
            out[f"only_{name}"] = min(_path(matrix, [1 if c else np.inf for c in chosen], min), VERTICES)
        return {name: float(value) for name, value in out.items()}

    def extremes(self) -> tuple[Arch, Arch]:
        """Return two members. Fewest: one projection of the input, to the width that four vertices share, and poolings.
        Most: a chain of five 3x3 convolutions of full width, and the four further edges from the input."""
        pooling, convolution = OPERATIONS[0], OPERATIONS[2]
        least = [[0] * 6 for _ in range(6)]
        most = [[0] * 7 for _ in range(7)]
        for u, v in ((0, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 5), (3, 5), (4, 5)):
            least[u][v] = 1
        for u, v in (*((v, v + 1) for v in range(6)), (0, 2), (0, 3), (0, 4)):
            most[u][v] = 1
        return tuple(
            self.representative(self.arch(matrix, (INPUT, *[op] * (len(matrix) - 2), OUTPUT)))
            for matrix, op in ((least, pooling), (most, convolution))
        )

    def total(self, arch: Arch) -> Size:
        matrix, ops = arch["matrix"], arch["ops"]
        inputs = outputs = self.width
        pixels = prod(self.sides)
        size = conv_norm(self.channels, outputs, 3, pixels)
        for stack in range(3):
            if stack:
                pixels //= 4
                outputs *= 2
            for _ in range(self.cells):
                channels = vertex_channels(matrix, inputs, outputs)
                for v in range(1, len(ops)):
                    if matrix[0][v]:
                        size += conv_norm(inputs, channels[v], 1, pixels)
                    if ops[v].startswith("conv"):
                        size += conv_norm(channels[v], channels[v], int(ops[v][4]), pixels)
                inputs = outputs
        return size + linear(outputs, self.classes)


def vertex_channels(matrix: Matrix, inputs: int, outputs: int) -> list[int]:
    """Return the channels of each vertex of a cell.

    The vertices that feed the output share its channels, the first of them the remainder. Another vertex has as many as
    the widest that it feeds."""
    last = len(matrix) - 1
    channels = [inputs] + [0] * (last - 1) + [outputs]
    feeding = [v for v in range(1, last) if matrix[v][last]]
    for place, v in enumerate(feeding):
        channels[v] = outputs // len(feeding) + (place < outputs % len(feeding))
    for v in reversed(range(1, last)):
        if not matrix[v][last]:
            channels[v] = max(channels[u] for u in range(v + 1, last) if matrix[v][u])
    return channels


def _read(text: str) -> tuple[Sequence, Sequence]:
    """Read matrix and names of the vertices in one of the formats; ValueError and the like for another one."""
    if text.startswith(("(", "[")):
        codes = ast.literal_eval(text)
        vertices = next((n for n in range(2, VERTICES + 1) if n * (n + 1) == len(codes)), None)
        if vertices is None:
            raise ValueError("no square matrix")
        rows = [codes[i * vertices : (i + 1) * vertices] for i in range(vertices + 1)]
        if min(rows[-1]) < 0:
            raise ValueError("negative code")
        return rows[:-1], [NASLIB_CODES[code] for code in rows[-1]]
    genes = json.loads(text)
    if genes.pop("family", NASBench101Space.family) != NASBench101Space.family:
        raise ValueError("another family")
    if set(genes) == {"module_adjacency", "module_operations"}:
        return genes["module_adjacency"], genes["module_operations"]
    if set(genes) != {"matrix", "ops"}:
        raise ValueError("other keys")
    return genes["matrix"], genes["ops"]


def _is_graph(matrix, ops) -> bool:
    """Return whether `matrix` is a strictly upper triangular square of 0 and 1 and `ops` names its vertices."""
    try:
        n = len(ops)
        return (
            2 <= n <= VERTICES
            and len(matrix) == n
            and all(len(row) == n for row in matrix)
            and all(x in (0, 1) and (x == 0 or v > u) for u, row in enumerate(matrix) for v, x in enumerate(row))
            and (ops[0], ops[-1]) == (INPUT, OUTPUT)
            and all(op in OPERATIONS for op in ops[1:-1])
        )
    except TypeError:
        return False


def _square(upper: np.ndarray) -> list[list[int]]:
    """Return the matrix of 7 vertices with these entries above the diagonal, row by row."""
    matrix = np.zeros((VERTICES, VERTICES), dtype=int)
    matrix[np.triu_indices(VERTICES, 1)] = upper
    return matrix.tolist()


def _in_seven(arch: Arch, others: Sequence[str], place: Sequence[int] = ()) -> tuple[np.ndarray, list[str]]:
    """Write a member as a graph of 7 vertices: entries above the diagonal, row by row, and names.

    Vertex v of the member is vertex ``place[v]`` there; by default it lacks the last ones before the output. The
    vertices without edges get their names from `others`."""
    place = place or (*range(len(arch["ops"]) - 1), VERTICES - 1)
    matrix = np.zeros((VERTICES, VERTICES), dtype=int)
    matrix[np.ix_(place, place)] = arch["matrix"]
    ops = [
        others[v] if v < len(others) and others[v] not in (INPUT, OUTPUT) else OPERATIONS[0] for v in range(VERTICES)
    ]
    for v, op in zip(place, arch["ops"], strict=True):
        ops[v] = op
    return matrix[np.triu_indices(VERTICES, 1)], ops


def _path(matrix: Matrix, weight: Sequence[float], best) -> float:
    """Return the largest or smallest sum of the weights of the vertices on a path, the output apart."""
    found = [weight[0]]
    for v in range(1, len(matrix)):
        found.append(best(found[u] for u in range(v) if matrix[u][v]) + (weight[v] if v < len(weight) else 0))
    return found[-1]


def orders(matrix: Matrix) -> Iterator[tuple[tuple[int, ...], Matrix]]:
    """Yield every order of the vertices in which the edges still point forward, with the matrix in this order."""
    last = len(matrix) - 1
    edges = [(u, v) for u in range(1, last) for v in range(u + 1, last) if matrix[u][v]]
    for inner in permutations(range(1, last)):
        order = (0, *inner, last)
        place = {v: i for i, v in enumerate(order)}
        if all(place[u] < place[v] for u, v in edges):
            yield order, tuple(tuple(matrix[u][v] for v in order) for u in order)


FAMILY = SpaceFamily(NASBench101Space, network="libranas.networks.nasbench101")
