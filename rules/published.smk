# Published tables of trained networks -> how every combiner fares on them, beside the paper's numbers.
from libranas.published.tables import find_tables, scores_file

TABLES = find_tables(config["published"]["tables"])
if not TABLES:
    raise WorkflowError(
        f"published.tables: {config['published']['tables']} has no table SPACE-TASK.csv or zc_SPACE.json of a published benchmark.\n"
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
        table=lambda wildcards: file_and_task(TABLES[wildcards.table])[0],
        scores=lambda wildcards: scores_file(SCORES, wildcards.table) or [],
    output:
        judged=out("judged_table"),
        table3=out("table3_table"),
        table4=out("table4_table"),
    log:
        log_of("published/{table}"),
    benchmark:
        times_of("published/{table}")
    wildcard_constraints:
        table="|".join(TABLES),
    resources:
        mem_mb=grows(2000),
        runtime=grows(240),
    params:
        version=stage_version("libra"),
        config=part("seed", published="labels splits methods"),
        files=lambda wildcards, input: states(input.table, scores_file(SCORES, wildcards.table)),
    script:
        "../scripts/published_table.py"


rule published:
    input:
        judged=expand(rules.published_table.output.judged, table=TABLES),
        table3=expand(rules.published_table.output.table3, table=TABLES),
        table4=expand(rules.published_table.output.table4, table=TABLES),
    output:
        judged=out("judged"),
        means=out("means"),
        table1=out("table1"),
        table3=out("table3"),
        table4=out("table4"),
        labels=out("labels"),
    log:
        log_of("published"),
    benchmark:
        times_of("published")
    localrule: True
    params:
        version=stage_version("libra"),
        tables=list(TABLES),
    script:
        "../scripts/published.py"
