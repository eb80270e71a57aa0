# Published tables of trained networks -> how every combiner fares on them, beside the paper's numbers.
from libranas.published.tables import find_tables, scores_file

TABLES = find_tables(config["published"]["tables"])
if not TABLES:
    raise WorkflowError(
        f"published.tables: {config['published']['tables']} has no table SPACE-TASK.csv of a published benchmark.\n"
        "  -> docs/published-benchmarks.md says which ones, and where they are."
    )


def scores_folder():
    """published.scores, in the working directory or, as the scores that are shipped, beside the Snakefile."""
    folder = config["published"]["scores"]
    found = [place for place in (folder, f"{workflow.basedir}/{folder}") if folder and os.path.isdir(place)]
    if folder and not found:
        raise WorkflowError(
            f"published.scores: there is no folder {folder}.\n  -> Name one with files SPACE.csv, or set it to null."
        )
    return found[0] if found else None


SCORES = scores_folder()


rule published_table:
    input:
        table=f"{config['published']['tables']}/{{table}}.csv",
        scores=lambda wildcards: scores_file(SCORES, wildcards.table) or [],
    output:
        judged=out("published/tables/{table}/judged.csv"),
        table3=out("published/tables/{table}/table3.csv"),
        table4=out("published/tables/{table}/table4.csv"),
    log:
        out("logs/published/{table}.log"),
    benchmark:
        out("times/published/{table}.tsv")
    wildcard_constraints:
        table="|".join(TABLES),
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(240),
    params:
        version=stage_version("libra"),
        published={**config["published"], "scores": SCORES},
        seed=config["seed"],
    script:
        "../scripts/published_table.py"


rule published:
    input:
        judged=expand(rules.published_table.output.judged, table=TABLES),
        table3=expand(rules.published_table.output.table3, table=TABLES),
        table4=expand(rules.published_table.output.table4, table=TABLES),
    output:
        judged=out("published/judged.csv"),
        means=out("published/means.csv"),
        table1=out("published/table1.csv"),
        table3=out("published/table3.csv"),
        table4=out("published/table4.csv"),
        labels=out("published/labels.csv"),
    log:
        out("logs/published.log"),
    benchmark:
        out("times/published.tsv")
    localrule: True
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        version=stage_version("libra"),
    script:
        "../scripts/published.py"
