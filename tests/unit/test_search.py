"""Search strategies: a contract that every searcher keeps, and what is chosen from their histories."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from enumeration import members

from libranas.core import pareto
from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.search.base import Evaluated, Searcher, points
from libranas.search.base import fittest as search_fittest
from libranas.search.history import history_table
from libranas.search.registry import STRATEGIES
from libranas.search.run import run as search_run
from libranas.search.selection import EQUAL_SIZE, SOME, TRIES, WINNERS, equal_size, select
from libranas.search.strategies.ageing import AgeingEvolution
from libranas.search.strategies.evolution import Evolution
from libranas.search.strategies.nsga2 import NSGA2
from libranas.search.strategies.random import RandomSearch
from libranas.spaces import AutoFormerSpace, Budget, Sampler

SPACE = AutoFormerSpace((16, 24, 32), (2, 3, 4), (1, 2, 3), (1.0, 2.0, 3.0), 8, 8, 2, 1, 10, max_relative_position=2)
BUDGET = Budget(params=(9000, 26000), macs=(150_000, 700_000))


def fitness(arch) -> tuple[float, dict]:
    """Wants many heads in early blocks and thin MLPs: nothing to do with size."""
    value = sum(h / (i + 1) for i, h in enumerate(arch["num_heads"])) - sum(arch["mlp_ratio"]) / arch["depth"]
    return value, {"heads": float(sum(arch["num_heads"])), "nan": float("nan")}


class SearcherContract:
    """What holds for every searcher; a subclass says how to make one."""

    def make(self, seed=1, budget=BUDGET):
        raise NotImplementedError

    def run(self, path, evaluations=60, evaluate=fitness, **kwargs):
        return search_run(self.make(**kwargs), evaluate, evaluations, path, "key")

    def test_within_the_budget_and_none_twice(self, tmp_path):
        history = self.run(tmp_path / "log")
        assert len(history) == 60 == len({e.arch.id for e in history})
        assert all(SPACE.contains(e.arch) and BUDGET.admits(SPACE, e.arch) for e in history)

    def test_equal_seeds_equal_histories(self, tmp_path):
        a, b, c = (self.run(tmp_path / f"log{i}", 30, seed=s) for i, s in enumerate((1, 1, 2)))
        assert [e.arch for e in a] == [e.arch for e in b] != [e.arch for e in c]

    def test_a_longer_search_begins_like_a_shorter_one(self, tmp_path):
        short, long = self.run(tmp_path / "short", 25), self.run(tmp_path / "long", 40)
        assert [e.arch for e in long[:25]] == [e.arch for e in short]
        assert [e.arch for e in self.run(tmp_path / "long", 25)] == [e.arch for e in short]

    @pytest.mark.parametrize("cut", [0.0, 0.3, 0.71, 0.999])
    def test_a_killed_search_goes_on_as_if_it_had_not_been(self, tmp_path, cut):
        whole = self.run(tmp_path / "whole", 40)
        raw = (tmp_path / "whole").read_bytes()
        killed = tmp_path / "killed"
        killed.write_bytes(raw[: int(cut * len(raw))])  # in the middle of a record, as kill -9 leaves it
        calls = []
        again = self.run(killed, 40, lambda arch: calls.append(arch) or fitness(arch))
        assert [(e.arch, e.fitness) for e in again] == [(e.arch, e.fitness) for e in whole]
        assert killed.read_bytes() == raw
        assert len(calls) == 40 - raw[: int(cut * len(raw))].count(b"\n")

    def test_an_exception_loses_nothing(self, tmp_path):
        def fails(arch, count=[0]):  # noqa: B006 - counts its calls
            count[0] += 1
            if count[0] == 7:
                raise RuntimeError("killed")
            return fitness(arch)

        with pytest.raises(RuntimeError):
            self.run(tmp_path / "log", 20, fails)
        again, whole = self.run(tmp_path / "log", 20), self.run(tmp_path / "whole", 20)
        assert [e.arch for e in again] == [e.arch for e in whole]

    def test_a_fitness_that_is_not_a_number_never_wins(self, tmp_path):
        def sometimes(arch):
            return (float("nan") if int(arch.id, 16) % 3 else fitness(arch)[0]), {}

        history = self.run(tmp_path / "log", 45, sometimes)
        bad = [e for e in history if int(e.arch.id, 16) % 3]
        assert bad and all(e.fitness == -math.inf for e in bad)
        assert math.isfinite(search_fittest(history, 1)[0].fitness)
        assert [e.arch for e in self.run(tmp_path / "log", 45, sometimes)] == [e.arch for e in history]

    def test_nothing_but_failures_still_ends(self, tmp_path):
        history = self.run(tmp_path / "log", 30, lambda arch: (float("nan"), {}))
        assert len(history) == 30 and all(e.fitness == -math.inf for e in history)

    def test_a_generation_is_evaluated_at_once_and_in_any_order(self, tmp_path):
        """As workers do it: results come in order, whatever was computed first."""
        sizes = []

        def each(evaluate, archs):
            archs = list(archs)
            sizes.append(len(archs))
            results = {arch.id: evaluate(arch) for arch in reversed(archs)}
            return (results[arch.id] for arch in archs)

        shared = search_run(self.make(), fitness, 37, tmp_path / "shared", "key", each=each)
        alone = self.run(tmp_path / "alone", 37)
        assert [e.arch for e in shared] == [e.arch for e in alone]
        assert (tmp_path / "shared").read_bytes() == (tmp_path / "alone").read_bytes()
        assert max(sizes) > 1 and sum(sizes) == 37

    def test_what_is_asked_depends_on_nothing_but_the_history(self, tmp_path):
        history = self.run(tmp_path / "log", 33)
        for n in (0, 9, 10, 17, 30):
            asked = list(itertools.islice(self.make().ask(history[:n]), 33 - n))
            assert asked == [e.arch for e in history[n : n + len(asked)]] and asked

    def test_scores_in_the_log_are_used_whoever_asked_for_them(self, tmp_path):
        other = search_run(RandomSearch(SPACE, BUDGET, 77), lambda arch: (1.0, {}), 40, tmp_path / "log", "key")
        known = {e.arch for e in other}
        calls = []
        history = self.run(tmp_path / "log", 60, lambda arch: calls.append(arch) or (1.0, {}))
        assert not known & set(calls) and len(calls) == len(set(calls)) == 60 - len(known & {e.arch for e in history})

    def test_records_under_another_key_are_not_used(self, tmp_path):
        self.run(tmp_path / "log", 10, lambda arch: (99.0, {}))
        history = search_run(self.make(), fitness, 10, tmp_path / "log", "other")
        assert len(history) == 10 and all(e.fitness != 99 for e in history)
        assert all(e.fitness == 99 for e in search_run(self.make(), fitness, 10, tmp_path / "log", "key"))

    def test_an_infeasible_budget_is_an_error(self, tmp_path):
        with pytest.raises(LibranasError, match="infeasible"):
            self.run(tmp_path / "log", 5, budget=Budget(params=(1, 2)))

    def test_a_space_that_is_used_up_is_an_error_and_no_endless_loop(self, tmp_path, monkeypatch):
        monkeypatch.setattr("libranas.spaces.Sampler.PATIENCE", 300)
        smallest = SPACE.params(SPACE.extremes()[0])
        with pytest.raises(LibranasError, match=r"evaluated \d+ networks .*\n.*search\.evaluations"):
            self.run(tmp_path / "log", 500, budget=Budget(params=(smallest, smallest + 600)))


def at_random(seed=1, budget=BUDGET):
    return RandomSearch(SPACE, budget, seed)


def best_of_five(make, path, worth=lambda history: max(e.fitness for e in history), evaluations=100) -> float:
    """Mean worth of the histories of five searches."""
    return np.mean([worth(search_run(make(s), fitness, evaluations, path / str(s), "key")) for s in range(5)])


class TestRandomSearch(SearcherContract):
    make = staticmethod(at_random)

    def test_the_fitness_changes_no_proposal(self, tmp_path):
        a, b = self.run(tmp_path / "a", 20), self.run(tmp_path / "b", 20, lambda arch: (0.0, {}))
        assert [e.arch for e in a] == [e.arch for e in b]


class TestEvolution(SearcherContract):
    def make(self, seed=1, budget=BUDGET):
        return Evolution(SPACE, budget, seed, population=10, parents=4)

    def test_it_finds_more_than_random_search(self, tmp_path):
        assert best_of_five(self.make, tmp_path / "ours") > best_of_five(at_random, tmp_path / "theirs") + 0.1

    def test_children_come_from_the_fittest(self, tmp_path):
        history = self.run(tmp_path / "log", 20)
        parents = search_fittest(history[:10], 4)
        crossed = [history[i].arch for i in range(11, 20, 2)]  # odd steps: every gene from a parent
        for child in crossed:
            assert any(child["embed_dim"] == e.arch["embed_dim"] for e in parents)
            for i in range(child["depth"]):
                assert any(
                    i < e.arch["depth"]
                    and (child["num_heads"][i], child["mlp_ratio"][i])
                    == (e.arch["num_heads"][i], e.arch["mlp_ratio"][i])
                    for e in parents
                )


class TestAgeingEvolution(SearcherContract):
    def make(self, seed=1, budget=BUDGET):
        return AgeingEvolution(SPACE, budget, seed, population=15, parents=5)

    def test_the_oldest_die_however_fit_they_are(self, tmp_path):
        history = self.run(tmp_path / "log", 40)
        assert self.make().chosen(history) == history[-15:]
        best = Evaluated(history[0].arch, 99.0, {})
        assert best not in self.make().chosen([best, *history[1:]])

    def test_the_fittest_of_a_few_has_the_child(self):
        rng = np.random.default_rng(0)
        parents = [Evaluated(SPACE.sample(rng), float(i), {}) for i in range(15)]
        all_of_them = AgeingEvolution(SPACE, BUDGET, 1, population=15, parents=15)
        ours = [all_of_them.offspring(parents, 20, np.random.default_rng(i)) for i in range(30)]

        def distance(child, arch):
            pairs = zip(child["num_heads"], arch["num_heads"], strict=False)
            return sum(a != b for a, b in pairs) / min(child["depth"], arch["depth"])

        near = np.mean([distance(c, parents[-1].arch) for c in ours])
        assert near < np.mean([distance(c, p.arch) for c in ours for p in parents[:-1]]) - 0.2

    def test_it_finds_more_than_random_search(self, tmp_path):
        assert best_of_five(self.make, tmp_path / "ours") > best_of_five(at_random, tmp_path / "theirs")


class TestNSGA2(SearcherContract):
    def make(self, seed=1, budget=BUDGET):
        return NSGA2(SPACE, budget, seed, population=12, costs=(SPACE.params, SPACE.macs))

    def test_its_front_is_nearer_to_the_true_one_than_that_of_random_search(self, tmp_path):
        def covered(history):
            point_PM = points([e.fitness for e in history], [SPACE.params(e.arch) for e in history])
            return pareto.hypervolume(point_PM, [0, BUDGET.params[1]])

        def make(seed):
            return NSGA2(SPACE, BUDGET, seed, population=20, costs=(SPACE.params,))

        theirs = best_of_five(at_random, tmp_path / "theirs", covered, 120)
        assert best_of_five(make, tmp_path / "ours", covered, 120) > 1.05 * theirs

    def test_the_better_of_two_has_the_child(self):
        class Draws:
            def __init__(self, *pairs):
                self.pairs = list(pairs)

            def integers(self, n, size):
                return np.array(self.pairs.pop(0))

            def random(self, *size):
                return np.zeros(*size) if size else 0.0  # all genes of the first parent

        rng = np.random.default_rng(0)
        parents = [Evaluated(SPACE.sample(rng), 0.0, {}) for _ in range(5)]
        child = self.make().offspring(parents, 1, Draws((4, 2), (3, 1)))
        assert child["depth"] == parents[2].arch["depth"] and child["embed_dim"] == parents[2].arch["embed_dim"]


class TestParamsOnly(SearcherContract):
    def make(self, seed=1, budget=BUDGET):
        return STRATEGIES["params"].searcher(SPACE, budget, seed, {"population": 10, "parents": 4})

    def test_it_finds_almost_the_largest(self, tmp_path):
        searcher = STRATEGIES["params"].searcher(SPACE, BUDGET, 1, {"population": 20, "parents": 5})
        size = STRATEGIES["params"].evaluation(SPACE, fitness)
        history = search_run(searcher, size, 200, tmp_path / "log", "key")
        assert max(e.fitness for e in history) > 0.98 * BUDGET.params[1]
        assert all(e.fitness == SPACE.params(e.arch) for e in history)


def test_unknown_strategies_are_refused():
    with pytest.raises(LibranasError, match="Unknown strategy 'annealing'"):
        STRATEGIES.get_or_explain("annealing")


def test_every_strategy_without_rules_of_its_own_is_a_searcher():
    settings = {"population": 5, "parents": 2, "objectives": ["macs", "latency"]}
    budget = replace(BUDGET, clock=Slow())
    for name, strategy in STRATEGIES.items():
        assert strategy.name == name and (strategy.evaluation(SPACE, fitness) is fitness) == (name != "params")
        assert strategy.needs_objectives == (name in ("nsga2", "guided"))
        assert (strategy.make is None) == (name in ("pruning", "guided")) and strategy.trains == (name == "guided")
        if strategy.make:
            searcher = strategy.searcher(SPACE, budget, 1, settings)
            assert searcher.name == name and isinstance(searcher, Searcher)
    assert STRATEGIES["nsga2"].searcher(SPACE, budget, 1, settings).costs == (SPACE.macs, budget.clock)


def test_the_fittest_with_ties_in_the_order_of_evaluation():
    archs = [SPACE.sample(np.random.default_rng(i)) for i in range(4)]
    history = [Evaluated(a, f, {}) for a, f in zip(archs, (1.0, 3.0, -math.inf, 3.0), strict=True)]
    assert [e.arch for e in search_fittest(history, 3)] == [archs[1], archs[3], archs[0]]


# -- what comes of the histories -----------------------------------------------------------------------------


def table_of(archs, values, **options) -> pd.DataFrame:
    history = [Evaluated(a, v, {"zico": 2.0}) for a, v in zip(archs, values, strict=True)]
    return history_table(history, SPACE, **options)


def by_size(archs, **options) -> pd.DataFrame:
    """As the params-only search would have evaluated them."""
    return table_of(archs, [float(SPACE.params(a)) for a in archs], **options)


def by_fitness(archs, **options) -> pd.DataFrame:
    return table_of(archs, [fitness(a)[0] for a in archs], **options)


def test_the_table_of_a_history(tmp_path):
    archs = [SPACE.sample(np.random.default_rng(i)) for i in range(3)]
    table = table_of(archs, (1.0, -math.inf, 2.0))
    assert table["evaluation"].tolist() == [1, 2, 3] and table["best"].tolist() == [1.0, 1.0, 2.0]
    assert table["params"].tolist() == [SPACE.params(a) for a in archs]
    assert [Arch.from_json(t) for t in table["architecture"]] == archs
    table.to_csv(tmp_path / "t.csv", index=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), table)


def test_a_random_control_of_equal_size():
    rng = np.random.default_rng(0)
    for seed in range(10):
        like = next(a for a in iter(lambda: SPACE.sample(rng), None) if BUDGET.admits(SPACE, a))
        control = next(equal_size(SPACE, BUDGET, like, 0.02, seed))
        assert control != like and BUDGET.admits(SPACE, control)
        assert abs(SPACE.params(control) / SPACE.params(like) - 1) <= 0.02
        assert next(equal_size(SPACE, BUDGET, like, 0.02, seed)) == control
        assert next(equal_size(SPACE, BUDGET, like, 0.02, seed, exclude=[control])) != control


def test_a_rare_size_is_reached_by_mutations(monkeypatch):
    monkeypatch.setattr("libranas.spaces.Sampler.PATIENCE", 30)
    largest = SPACE.extremes()[1]
    near = next(equal_size(SPACE, Budget(), largest, 0.05, 1))
    assert near != largest and abs(SPACE.params(near) / SPACE.params(largest) - 1) <= 0.05
    assert near == next(equal_size(SPACE, Budget(), largest, 0.05, 1))


def test_a_size_that_no_other_network_has_is_taken_as_nearly_as_there_is_one(monkeypatch):
    monkeypatch.setattr("libranas.spaces.Sampler.PATIENCE", 30)
    monkeypatch.setattr("libranas.search.selection.WALKS", 10)
    size = SPACE.params(largest := SPACE.extremes()[1])
    near = next(equal_size(SPACE, Budget(), largest, 1e-9, 1))
    assert near != largest and near == next(equal_size(SPACE, Budget(), largest, 1e-9, 1))
    smaller = [SPACE.params(SPACE.mutate(largest, np.random.default_rng(i))) for i in range(300)]
    assert SPACE.params(near) >= max(s for s in smaller if s < size)
    with pytest.raises(LibranasError, match="different architectures"):
        next(equal_size(SPACE, Budget(params=(size, size)), largest, 0.02, 1))  # there is no other one
    table = table_of([largest], [1.0])
    control = select({"evolution": table, "params": table}, SPACE, Budget(), 1)["random"]
    assert control["params_difference"] == control["params"] / size - 1 < -EQUAL_SIZE


def test_the_winner_and_its_controls():
    rng = np.random.default_rng(3)
    archs = [a for a in (SPACE.sample(rng) for _ in range(400)) if BUDGET.admits(SPACE, a)][:40]
    sizes = [SPACE.params(a) for a in archs]
    selected = select({"evolution": by_fitness(archs[:20]), "params": by_size(archs[20:])}, SPACE, BUDGET, seed=1)
    winner, control, largest = (Arch.from_json(selected[r]["architecture"]) for r in ("winner", "random", "params_max"))
    assert winner == max(archs[:20], key=lambda a: fitness(a)[0])
    assert SPACE.params(largest) == max(sizes[20:])
    assert len({winner.id, control.id, largest.id}) == 3
    assert abs(SPACE.params(control) / SPACE.params(winner) - 1) <= EQUAL_SIZE
    assert "params_difference" not in selected["random"]
    for entry in selected.values():
        arch = Arch.from_json(entry["architecture"])
        assert (entry["id"], entry["params"], entry["macs"]) == (arch.id, SPACE.params(arch), SPACE.macs(arch))
        assert "same_as" not in entry
    assert json.loads(json.dumps(selected)) == selected


def test_a_winner_that_is_the_largest_says_so():
    table = by_size([SPACE.sample(np.random.default_rng(i)) for i in range(3)])
    selected = select({"evolution": table, "params": table}, SPACE, Budget(), seed=1)
    assert selected["params_max"]["same_as"] == "winner"


def test_the_front_of_a_history_and_its_best_compromise():
    rng = np.random.default_rng(3)
    archs = [SPACE.sample(rng) for _ in range(40)]
    history = [Evaluated(a, fitness(a)[0] if i else -math.inf, {}) for i, a in enumerate(archs)]
    objectives, costs = ("params", "macs"), (SPACE.params, SPACE.macs)
    table = history_table(history, SPACE, objectives=objectives)
    front = pareto.front(points([e.fitness for e in history], *([cost(a) for a in archs] for cost in costs)))
    assert set(np.flatnonzero(table["front"])) == set(front) and 1 < len(front) < 40
    histories = {"nsga2": table, "params": by_size(archs)}
    fittest, balanced = (select(histories, SPACE, Budget(), 1, rule, objectives)["winner"] for rule in WINNERS)
    assert fittest["id"] == table["id"][table["fitness"].idxmax()] != balanced["id"]
    assert balanced["id"] in set(table["id"][table["front"]]) and balanced["params"] < fittest["params"]


class Slow:
    """A table of latencies that says a thousandth of the parameters."""

    def __call__(self, arch):
        return SPACE.params(arch) / 1000

    def extremes(self, space):
        return space.extremes()


def test_roles_keep_to_the_latency_that_is_measured():
    rng = np.random.default_rng(3)
    budget = Budget(latency=(0, 20), clock=Slow())
    archs = Sampler(SPACE, budget, rng).take(30)
    histories = {"evolution": by_fitness(archs, budget=budget), "params": by_size(archs, budget=budget)}
    assert histories["evolution"]["latency"].tolist() == [SPACE.params(a) / 1000 for a in archs]

    def measured(arch):  # a third of the networks are slower than the table says
        return {"median": SPACE.params(arch) / 1000 + 20 * (int(arch.id, 16) % 3 == 0)}

    selected = select(histories, SPACE, budget, 1, measured=measured)
    assert all(entry["latency"]["median"] <= 20 for entry in selected.values())
    kept = [a for a in archs if measured(a)["median"] <= 20]
    best = max(kept, key=lambda a: fitness(a)[0])
    assert selected["winner"]["id"] == best.id
    fitter = {a.id for a in archs if fitness(a)[0] > fitness(best)[0]}
    assert {e["id"] for e in selected["winner"].get("rejected", [])} == fitter
    assert selected["params_max"]["params"] == max(map(SPACE.params, kept))
    with pytest.raises(LibranasError, match=r"keeps to budget\.latency"):
        select(histories, SPACE, budget, 1, measured=lambda a: {"median": 20.1})
    unlimited = select(histories, SPACE, Budget(), 1, measured=measured)
    assert unlimited["winner"]["id"] == max(archs, key=lambda a: fitness(a)[0]).id and unlimited["winner"]["latency"]


def test_a_machine_that_became_slower_does_not_end_the_search():
    """All of the fittest lie at the limit of the table, and measure two per cent more."""
    budget = Budget(latency=(5, 20), clock=Slow())
    archs = sorted(Sampler(SPACE, budget, np.random.default_rng(3)).take(200), key=SPACE.params)
    table = by_size(archs, budget=budget)
    factor = 20_000 / SPACE.params(archs[-TRIES - 5])  # more than TRIES of the fittest are too slow

    def measured(arch):
        return {"median": factor * 1.0001 * SPACE.params(arch) / 1000}

    selected = select({"evolution": table, "params": table}, SPACE, budget, 1, measured=measured)
    assert len(selected["winner"]["rejected"]) == SOME
    assert selected["winner"]["id"] == [a for a in archs if measured(a)["median"] <= 20][-1].id
    fast = {"median": 4.9}
    with pytest.raises(LibranasError, match=r"\[5, 20\] when it is measured; .* 4\.900 to 4\.900 ms"):
        select({"evolution": table, "params": table}, SPACE, budget, 1, measured=lambda a: fast)


def test_controls_of_equal_size_come_one_after_the_other_and_end(monkeypatch):
    monkeypatch.setattr("libranas.spaces.Sampler.PATIENCE", 1000)
    monkeypatch.setattr("libranas.search.selection.WALKS", 2)
    like = SPACE.sample(np.random.default_rng(0))
    found = equal_size(SPACE, Budget(), like, 0.02, 1)
    many = [next(found) for _ in range(50)]
    assert len({a.id for a in (like, *many)}) == 51
    assert all(abs(SPACE.params(a) / SPACE.params(like) - 1) <= 0.02 for a in many)
    four = replace(SPACE, embed_dim=(16,), depth=(2,), num_heads=(1, 2), mlp_ratio=(1.0,))
    one, *others = members(four)
    assert set(equal_size(four, Budget(), one, 0.9, 1)) == set(others) and len(others) == 3


def test_the_control_of_equal_size_keeps_to_the_latency():
    budget = Budget(latency=(0, 20), clock=Slow())
    like = Sampler(SPACE, budget, np.random.default_rng(0)).take(1)[0]
    assert budget.admits(SPACE, next(equal_size(SPACE, budget, like, 0.1, 1)))


def test_a_reference_of_the_user_is_one_more_control():
    archs = [SPACE.sample(np.random.default_rng(i)) for i in range(4)]
    tables = {"evolution": table_of(archs, [1.0, 2.0, 4.0, 3.0]), "params": table_of(archs, [3.0, 1.0, 2.0, 1.0])}
    plain = select(tables, SPACE, Budget(), seed=1)
    selected = select(tables, SPACE, Budget(), seed=1, reference=archs[0])
    assert {role: selected[role] for role in plain} == plain and list(selected)[-1] == "reference"
    assert selected["reference"]["id"] == archs[0].id and "same_as" not in selected["reference"]
    assert selected["reference"]["macs"] == SPACE.macs(archs[0])
    again = select(tables, SPACE, Budget(), seed=1, reference=archs[2])
    assert again["reference"]["same_as"] == "winner"


def test_a_search_in_which_all_failed_is_an_error():
    archs = [SPACE.sample(np.random.default_rng(i)) for i in range(3)]
    failed, good = table_of(archs, [-math.inf] * 3), table_of(archs, [1.0, 2.0, 3.0])
    with pytest.raises(LibranasError, match="No candidate of the search has a finite fitness"):
        select({"evolution": failed, "params": good}, SPACE, Budget(), seed=1)
