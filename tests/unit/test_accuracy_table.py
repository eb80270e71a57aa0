"""Tables of accuracies of the stage benchmark; those of users are tested with the spaces that they name."""

from libranas.labels.table import mean_accuracies, read_accuracies


def test_an_id_that_looks_like_a_number_is_none(tmp_path):
    paths = []
    for name, text in (("one", "012345678901,0,0.5\n"), ("two", "47362e209812,0,0.25\n47362e209812,1,0.75\n")):
        paths.append(tmp_path / f"{name}.csv")
        paths[-1].write_text(f"id,seed,accuracy\n{text}")
    assert read_accuracies(*paths)["id"].tolist() == ["012345678901", "47362e209812", "47362e209812"]
    assert mean_accuracies(paths[1]).to_dict() == {"47362e209812": 0.5}
